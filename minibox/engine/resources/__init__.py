"""The stores that outlive containers: volumes, networks, images, registries. Nothing here reads a container."""
