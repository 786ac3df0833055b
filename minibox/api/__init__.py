"""The Python API, which `import minibox` offers: keyword arguments become one call of the engine. What the command line
needs as well belongs in the engine. docs/api.md is the reference.
"""
