"""The kernel's interfaces and our C programs, one module each. What combines them belongs in `minibox.engine`."""
