"""Published ports of an ordinary user: by pasta, or not at all."""

from __future__ import annotations

import os
import subprocess

from tests import isolation
from tests.leaks import SLOWNESS
from tests.probes import requires

pytestmark = requires("root", "user")

# Pasta needs a way out and a tun device that is open to everybody, as Debian's is.
AS_USER = """
set -e
ip link set lo up
ip link add d0 type veth peer name d1
ip address add 192.0.2.1/24 dev d0
ip link set d1 up
ip link set d0 up
ip route add default via 192.0.2.2
mount -t tmpfs none /mnt
mknod -m 0666 /mnt/tun c 10 200
mount --bind /mnt/tun /dev/net/tun
user=$1
shift
exec setpriv --reuid "$user" --regid "$user" --clear-groups -- bash -c "$@"
"""
PUBLISH = r"""
get() { (exec 3<>"/dev/tcp/$1" && printf 'GET /hostname HTTP/1.0\r\n\r\n' >&3 && timeout 30 tail -n 1 <&3 | grep .) 2>/dev/null; }
"$@" run -d --name web --hostname here -p 127.0.0.1:8080:80 -p 192.0.2.1::80 base httpd -f -h /etc >/dev/null || exit 1
second=$("$@" port web 80 | tail -n 1)
for i in $(seq 100); do get 127.0.0.1/8080 && break; sleep 0.1; done
get "${second/:/\/}"
get 192.0.2.1/8080 || echo none
"$@" run --rm -p 8080:80 base true
"$@" run --rm -p 80:80 base true
"$@" rm -f web
for i in $(seq 100); do get 127.0.0.1/8080 || break; sleep 0.1; done
get 127.0.0.1/8080 || echo gone
"""


@requires("command:pasta", "command:setpriv")
def test_an_ordinary_users_ports_are_published_by_pasta(user_command, user_environment, minibox_user):
    words = ["unshare", "--net", "--mount", "sh", "-c", AS_USER, "sh", str(isolation.USER_ID), PUBLISH, "bash"]
    done = subprocess.run(
        [*words, *user_command],
        env=user_environment,
        capture_output=True,
        text=True,
        timeout=120 * SLOWNESS,
        check=False,
    )
    assert done.stdout.split() == ["here", "here", "none", "web", "gone"], done.stderr
    assert "publish 0.0.0.0:8080->80/tcp: the port is taken by container web" in done.stderr
    assert "ports below 1024 are root's" in done.stderr
    assert minibox_user("ps", "-aq").stdout == ""


def test_an_ordinary_user_without_pasta_is_told_what_works_instead(minibox_user):
    done = minibox_user("run", "--rm", "-p", "8080:80", "base", "true")
    assert done.returncode == 125
    assert "publishing ports without root needs pasta: " in done.stderr and "--network host" in done.stderr
    if not os.access("/dev/net/tun", os.R_OK) or os.stat("/dev/net/tun").st_mode & 0o006 != 0o006:
        assert "chmod 0666 /dev/net/tun" in done.stderr and "apt install" not in done.stderr, "that is what is missing"
