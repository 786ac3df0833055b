"""Storage drivers: each gives a container its own writable root file system on top of an image's layers. Unpacking
layers belongs in `minibox.image.layer`.
"""
