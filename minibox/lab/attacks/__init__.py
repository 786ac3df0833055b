"""Small attackers, and the protections of a container that stop them: `minibox explain --without`.

Each attack runs in a container that lacks one protection or several, against stand-ins: a neighbour container, files,
processes and keys made for it. Nothing of the host itself is changed.
"""
