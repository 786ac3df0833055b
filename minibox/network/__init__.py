"""Networks: addresses, the bridge and its veth pairs, the firewall, a container's own files, rootless helpers.

Import each module by name, when you need it: `lease` and `files` are cheap, and every start uses them; a start with a
bridge uses `bridge` and `firewall`. pyroute2 is imported only to compile the requests to the kernel, once after a boot.
"""
