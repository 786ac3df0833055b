"""`minibox build`: from a Dockerfile and a context to an image. What the Dockerfile says is in `dockerfile`; running a
container or keeping a layer belongs in the engine and the storage below.
"""
