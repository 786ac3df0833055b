"""How output looks: tables, templates of `--format`, progress bars, units. Nothing here reads a container or an image."""
