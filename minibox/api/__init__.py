"""What `import minibox` offers: a door to the engine, shaped after `subprocess`. docs/api.md is the reference."""
