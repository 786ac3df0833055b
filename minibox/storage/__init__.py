"""Storage drivers: who gives a container a root file system of its own on top of an image's layers."""
