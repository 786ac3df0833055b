"""Images: the store, layers, archives, registries. Root file systems made of layers belong in `minibox.storage`."""
