"""What a build makes of a stage: the config and the history, the image in the store, and outputs beside it."""
