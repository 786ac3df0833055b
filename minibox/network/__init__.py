"""Networks: addresses, bridges, the firewall, published ports, /etc/hosts, rootless helpers. Which network a container
gets is decided in `minibox.engine.resources.container_network`.

Import each module by name, when you need it: `lease` and `files` are cheap, and every start uses them; a start with a
bridge uses `bridge` and `firewall`. pyroute2 is imported only to compile the requests to the kernel, once after a boot.
"""
