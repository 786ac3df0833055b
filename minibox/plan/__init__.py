"""From an OCI Spec to a Plan, which is a flat list of operations, and a Plan in words. Pure: it reads no image and asks
the host nothing; `native/` executes it.
"""
