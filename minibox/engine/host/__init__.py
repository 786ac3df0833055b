"""What the host can do and where minibox keeps its files. Reads no container."""
