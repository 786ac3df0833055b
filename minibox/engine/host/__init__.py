"""What this host can do, which ids it has for containers, and where minibox keeps its files. Reads no container."""
