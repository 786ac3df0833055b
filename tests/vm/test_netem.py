"""What the kernel's scheduler does to a container's link is what the container feels: sch_netem."""

from __future__ import annotations

import json
import re
import subprocess

from tests.probes import requires
from tests.running_container import running

pytestmark = requires("root", "command:nft", "command:tc", "command:ip")

#: Ping the gateway three times, and again after each of three lines.
SCRIPT = """gateway=$(ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p')
            try() { ping -c 3 -i 0.1 -W 5 $gateway | tail -n 2 | xargs echo; }
            try; for _ in 1 2 3; do read line; try; done"""


def shape(link: str, *words: str) -> None:
    subprocess.run(["tc", "qdisc", "replace", "dev", link, "root", "netem", *words], check=True)


def fastest_ms(line: str) -> float:
    found = re.search(r"min/avg/max = ([\d.]+)/", line)
    assert found, line
    return float(found[1])


def test_delay_and_loss_on_the_hosts_end_are_felt_inside(
    minibox_command: list[str], environment: dict[str, str]
) -> None:
    with running(minibox_command, environment, script=SCRIPT) as box:
        stdin, stdout = box.process.stdin, box.process.stdout
        assert stdin and stdout
        links = subprocess.run(["ip", "-json", "link", "show", "type", "veth"], capture_output=True, check=True)
        (link,) = json.loads(links.stdout)

        def again() -> str:
            stdin.write("\n")
            stdin.flush()
            return stdout.readline()

        undelayed_ms = fastest_ms(box.first_line)
        shape(link["ifname"], "delay", "400ms")
        assert fastest_ms(again()) >= 400 > undelayed_ms
        shape(link["ifname"], "loss", "100%")
        assert "100% packet loss" in again()
        shape(link["ifname"], "delay", "0ms")
        assert fastest_ms(again()) < 400
