"""The engines of Debian 13, beside those of the machine: in a root file system and a mount namespace of their own.

`make` fetches them once, into a cache directory outside of the checkout: ``python -m tests.debian13.root``. What they write goes into
``place``, which has the same path inside, or is gone with the namespace.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAKE = Path(__file__).parent / "make"

#: Shell: the root file system $1, with what is seen of the host at the other paths. It goes on until its stdin ends.
ENTER = """
set -eu
root=$1 own=$1/mnt
shift
mount -t tmpfs -o mode=755 none "$own"
cd "$own"
mkdir new upper work
mount -t overlay -o "lowerdir=$root,upperdir=$own/upper,workdir=$own/work" none new
for each in /proc /sys /dev "$@"; do
    mkdir -p "new$each"
    mount --rbind "$each" "new$each"
done
cp /etc/resolv.conf /etc/hosts new/etc/
mkdir -p new/etc/containers
printf '[containers]\\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\\n[engine]\\nevents_logger = "none"\\n' > new/etc/containers/containers.conf
exec chroot new sh -c 'echo; exec cat > /dev/null'
"""


def directory() -> Path:
    """Where the root file system is, made or not; another list of packages is another one."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "minibox-debian13" / hashlib.sha256(MAKE.read_bytes()).hexdigest()[:12]


def make(*enter: str) -> None:
    """Make it if it isn't there yet: this needs the network, to which the words ``enter`` lead."""
    subprocess.run([*enter, MAKE, directory()], check=True)


@contextmanager
def entered(place: Path, *seen: Path) -> Iterator[tuple[str, ...]]:
    """The words that start a program there, until the end of the block.

    Args:
        place: a directory of ours, which is seen inside, too.
        seen: others that are.
    """
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, "sh"]
    with subprocess.Popen([*words, directory(), place, *seen], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin and holder.stdout
        assert holder.stdout.read(1), "no root file system of Debian 13"
        own = ("env", "--unset=CONTAINERS_CONF")  # it has one
        yield ("nsenter", f"--target={holder.pid}", "--mount", "--root", "--wdns=/", *own)


if __name__ == "__main__":
    make()
