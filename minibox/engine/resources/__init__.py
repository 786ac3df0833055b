"""What outlives containers: volumes, networks, images, archives, registries. Reads no container; who uses a volume or
an image is found in `upkeep`.
"""
