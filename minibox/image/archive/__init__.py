"""Images in tar archives: `load`, `save`, `import`. Reading and packing tar itself belongs in `layer`."""
