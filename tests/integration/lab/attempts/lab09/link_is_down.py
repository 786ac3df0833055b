# missing: is down

import os
import signal
import subprocess

from pyroute2 import IPRoute

from minibox.linux import CLONE_NEWNET, clone

RULES = """
table ip nat {
    chain post {
        type nat hook postrouting priority srcnat;
        ip saddr 10.9.0.0/24 oifname "eth0" masquerade
    }
}
"""


def index_of(ip: IPRoute, name: str) -> int:
    return int(ip.link_lookup(ifname=name)[0])


def container(address: str, wired: int, done: int) -> None:
    os.read(wired, 1)
    with IPRoute() as ip:
        eth0 = index_of(ip, "eth0")
        ip.addr("add", index=eth0, address=address, prefixlen=24)
    os.write(done, b".")
    signal.pause()


with IPRoute() as ip:
    ip.link("add", ifname="br0", kind="bridge")
    br0 = index_of(ip, "br0")
    ip.addr("add", index=br0, address="10.9.0.1", prefixlen=24)
    ip.link("set", index=br0, state="up")
    for number in (2, 3):
        wired, tell_wired = os.pipe()
        done, tell_done = os.pipe()
        pid = clone(lambda: container(f"10.9.0.{number}", wired, tell_done), CLONE_NEWNET)  # noqa: B023
        port = f"port{number}"
        ip.link("add", ifname=port, kind="veth", peer={"ifname": "eth0", "net_ns_pid": pid})
        ip.link("set", index=index_of(ip, port), master=br0, state="up")
        os.write(tell_wired, b".")
        os.read(done, 1)

with open("/proc/sys/net/ipv4/ip_forward", "w") as file:
    file.write("1")
subprocess.run(["nft", "-f", "-"], input=RULES, text=True, check=True)

print("ready")
signal.pause()
