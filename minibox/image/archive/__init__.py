"""Images in tar archives: load, save, import."""
