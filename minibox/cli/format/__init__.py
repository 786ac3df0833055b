"""How answers look: tables, templates, progress, units."""
