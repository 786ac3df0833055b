"""Docker's words for mounts, ports, limits and the like, as typed values. What the values do belongs in the engine."""
