"""Lines of builds on other machines: ``--cache-to`` writes them to a registry or a directory, ``--cache-from`` reads
them. What this machine keeps belongs in `minibox.build.cache`."""
