"""`minibox try`: a command of the host on an overlay over the host's own files; what it changed is shown, and applied,
kept or discarded. How a container starts and ends belongs in `container`, how trees are compared in `minibox.image.layer`.
"""
