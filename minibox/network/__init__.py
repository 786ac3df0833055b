"""Networks: addresses, the bridge and its veth pairs, the firewall, a container's own files, rootless helpers.

Each module is imported by name, when needed: `lease` and `files` are cheap and belong to every
start; `bridge` and `firewall` to a start with a bridge; pyroute2 loads only when the requests to
the kernel are compiled, once after a boot.
"""
