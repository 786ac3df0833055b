"""The stores that outlive containers: volumes, networks, images, registries. Reads no container."""
