"""Images: their references and platforms, and the store. Root file systems made of layers belong in `minibox.storage`."""
