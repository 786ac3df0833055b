"""One bad file costs its own container, volume, network or image, and nothing else.

One of everything is made, and what is then found on disk is damaged, file by file: so a new kind of file can't be
forgotten. CI tries each kind once, in one way (MINIBOX_DAMAGE_SEED chooses others); ``make hostile`` in every way.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.container_box import Box
from tests.leaks import SLOWNESS
from tests.probes import requires

pytestmark = requires("root", "command:nft")

TIMEOUT_S = 30 * SLOWNESS
HEX = re.compile(r"[0-9a-f]{8,}")
#: Content of others: the image's files, the container's, the volume's; and files that are locks alone.
NOT_OURS = re.compile(
    r"/containers/[^/]+/(upper|work|rootfs|root|volumes)/|^/root/layers/|/_data/|\.lock$|/exit\.new$|/tmp/"
    r"|/(hosts|hostname|resolv\.conf)$"
)
SHARES = 4


def truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def garble(path: Path) -> None:
    data = bytearray(path.read_bytes() or b"x")
    data[len(data) // 3] = 0xFF
    data[-1] ^= 0x55
    path.write_bytes(data)


def written(text: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(text)

    return write


def instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


def retype(path: Path) -> None:
    """Each value of it is of another type."""
    try:
        found = json.loads(path.read_text())
    except ValueError:
        found = None
    if isinstance(found, dict):
        changed = {key: [value] if not isinstance(value, list) else {"x": value} for key, value in found.items()}
        path.write_text(json.dumps({**changed, **{key: found[key] for key in ("Kind", "Format") if key in found}}))
    else:
        path.write_bytes(b"[7]")


WAYS: dict[str, Callable[[Path], None]] = {
    "truncated": truncate,
    "empty": written(b""),
    "garbled": garble,
    "retyped": retype,
    "a byte that is no UTF-8": written(b"\xff"),
    "another's": written(b"0.0.0.0 80 80 tcp\n\n\0\0"),
    "a list": written(b"[]\n"),
    "numbers out of range": written(b'{"Kind": "x", "Format": 1e999}'),
    "nested": written(b'{"a":' * 50_000),
    "a directory": instead(lambda path: (path / "inside").mkdir(parents=True)),
    "a fifo": instead(os.mkfifo),
    "a link to itself": instead(lambda path: path.symlink_to(path.name)),
    "a link to a device": instead(lambda path: path.symlink_to("/dev/zero")),
}
OF_LINKS = {
    "leads to nothing of ours": instead(lambda path: path.symlink_to("../../etc/passwd\n")),
    "a directory": instead(lambda path: (path / "inside").mkdir(parents=True)),
    "a file": instead(lambda path: path.write_bytes(b"\xff")),
    "a fifo": instead(os.mkfifo),
}


#: What is asked of those that are whole, and what the answer has in it.
OF_GOOD: dict[tuple[str, ...], str] = {
    ("port", "good"): "127.0.0.1:",
    ("logs", "good"): "ready",
    ("exec", "good", "echo", "here"): "here",
    ("inspect", "-f", "{{.State.Health.Status}}", "good"): "healthy",
    ("why", "good-ended"): "3",
    ("network", "ls"): "net-good",
    ("network", "inspect", "net-good"): "good",
    ("volume", "ls"): "vol-good",
    ("system", "df"): "Containers",
    ("events", "--since", "1m", "--until", "0s"): "",
    ("stats", "--no-stream", "good"): "good",
}
NEW_ONE = ("run", "--rm", "--network", "net-good", "-v", "vol-good:/v", "base", "echo", "new")
#: And of what is damaged, whatever the answer is.
OF_BAD: tuple[tuple[str, ...], ...] = (
    ("inspect", "bad"),
    ("port", "bad"),
    ("logs", "bad"),
    ("exec", "bad", "true"),
    ("why", "bad"),
    ("images",),
    ("network", "inspect", "net-bad"),
    ("volume", "inspect", "vol-bad"),
    ("diff", "bad-ended"),
    ("start", "bad-made"),
)


class World:
    """Two of everything: ``bad`` is damaged, ``good`` mustn't notice."""

    def __init__(self, box: Box) -> None:
        self.box, self.root = box, box.directory
        for name in ("images", "cache"):  # the seed's own, by hard links
            place = self.root / "root" / name
            shutil.copytree(place, self.root / name, symlinks=True)
            shutil.rmtree(place)
            (self.root / name).rename(place)
        self.make_all("good")

    def make_all(self, name: str) -> None:
        """A network, a volume, and containers on them that run, have ended and were never started."""
        box, net, volume = self.box, f"net-{name}", f"vol-{name}"
        box.ok("network", "create", "--label", "a=b", net)
        box.ok("volume", "create", "--label", "a=b", volume)
        box.ok(
            *("run", "-d", "--name", name, "--network", net, "-v", f"{volume}:/v", "-p", "127.0.0.1::80"),
            *("--restart", "on-failure", "--health-cmd", "true", "--health-interval", "200ms", "base"),
            *("sh", "-c", "trap : USR1; echo ready; while :; do sleep 1; done"),
        )
        box.until_logged(name, "ready")
        box.until(lambda: box.ok("inspect", "-f", "{{.State.Health.Status}}", name) == "healthy", "it is healthy")
        box.ok("kill", "-s", "USR1", name)
        box.ok("run", "-d", "--name", f"{name}-ended", "base", "sh", "-c", "exit 3")
        box.ok("wait", f"{name}-ended")
        box.ok("stop", f"{name}-ended")
        box.ok("create", "--name", f"{name}-made", "base", "true")
        box.ok("network", "connect", net, f"{name}-made")

    def ids(self, name: str) -> list[str]:
        known = self.box("ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}}").stdout.split("\n")
        return [line.split()[0] for line in known if line and line.split()[1].startswith(name)]

    def files(self) -> dict[str, Path]:
        """What is ours on disk and belongs to ``bad`` or to all, by its kind: its path without what is random in it."""
        good = [*self.ids("good"), *self._bridges("net-good"), "good"]
        found: dict[str, Path] = {}
        for top in ("root", "run"):
            for place, _, names in os.walk(self.root / top):
                for name in sorted(names):
                    path = Path(place, name)
                    inside = f"/{path.relative_to(self.root)}"
                    if NOT_OURS.search(inside) or any(each in inside for each in good):
                        continue
                    if path.is_symlink() or path.is_file():  # not one that was only there for a moment
                        kind = HEX.sub("ID", re.sub(r"\d+(\.\d+)+", "ADDRESS", inside))
                        found.setdefault(re.sub(r"/ids/.*", "/ids/N", kind), path)
        return found

    def _bridges(self, network: str) -> list[str]:
        done = self.box("network", "inspect", "-f", "{{.Id}}", network)
        return [done.stdout.strip()[:12]] if done.returncode == 0 else []

    def remove(self, name: str) -> None:
        """All of it, whatever is damaged."""
        for each in (name, f"{name}-ended", f"{name}-made"):
            done = self.run("rm", "-f", each)
            assert done.returncode == 0 or "there is no container" in done.stderr, done
        for words in (("network", "rm", "-f", f"net-{name}"), ("volume", "rm", "-f", f"vol-{name}")):
            done = self.run(*words)
            assert done.returncode == 0, done

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command that neither hangs nor breaks."""
        done: subprocess.CompletedProcess[str] = self.box(*words, timeout_s=TIMEOUT_S)
        assert "internal error" not in done.stderr and "Traceback" not in done.stderr, (words, done)
        return done

    def look(self, of_images: bool) -> None:
        """At all there is, several commands at once; ``good`` has everything as before."""
        listed = self.run("ps", "-a", "--format", "{{.Names}} {{.Status}}")
        assert listed.returncode == 0, listed
        assert re.search(r"^good Up .*healthy", listed.stdout, re.M) and "good-ended Exited (3)" in listed.stdout, (
            listed
        )
        of_good = dict(OF_GOOD if of_images else {**OF_GOOD, NEW_ONE: "new"})
        with ThreadPoolExecutor(4) as pool:
            answers = pool.map(lambda words: self.run(*words), (*of_good, *OF_BAD))
            for words, done in zip((*of_good, *OF_BAD), answers, strict=True):
                assert words in OF_BAD or (done.returncode == 0 and of_good[words] in done.stdout), (words, done)


@pytest.fixture
def world(box: Box) -> Iterator[World]:
    made = World(box)
    yield made
    for name in ("good", "bad"):
        made.remove(name)


def cases(world: World, share: int, in_ci: int, everything: bool) -> list[tuple[str, str]]:
    """Of each kind one way, or all of them, and of these the part of one test."""
    chance = random.Random(os.environ.get("MINIBOX_DAMAGE_SEED", "1"))
    found = []
    for kind, path in sorted(world.files().items()):
        ways = list(OF_LINKS if path.is_symlink() else WAYS)
        chance.shuffle(ways)
        found += [(kind, way) for way in (ways if everything else ways[:1])]
    chance.shuffle(found)
    mine = found[share::SHARES]
    return mine if everything else mine[:in_ci]


@pytest.mark.parametrize("share", range(SHARES))
def test_damage_costs_its_own_thing_alone(world: World, rounds: Callable[[int], range], share: int) -> None:
    world.make_all("bad")
    kinds = world.files()
    assert len(kinds) > 25, sorted(kinds)
    failures = []
    for kind, way in cases(world, share, 2, len(rounds(1)) > 1):
        print(f"{kind}: {way}", flush=True)
        if kind not in world.files():  # as what is only there for a moment
            print("it is not there this time", flush=True)
            continue
        try:
            damage_and_mend(world, kind, way)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            failures.append(f"{kind}: {way}: {error}")
            print("FAILED", failures[-1], flush=True)
        world.remove("bad")
        world.make_all("bad")
    assert not failures, "\n\n".join(failures)


def damage_and_mend(world: World, kind: str, way: str) -> None:
    """One file in one way: nobody else notices, it is found, and mended or gone."""
    path = world.files()[kind]
    images = "/images/" in kind
    if images:
        shutil.copytree(world.root / "root/images", world.root / "images")
    (OF_LINKS if path.is_symlink() else WAYS)[way](path)
    try:
        world.look(images)
        checked = world.run("system", "check", "--quick")
        assert checked.returncode in (0, 1), checked
        repaired = world.run("system", "check", "--quick", "--repair")
        again = world.run("system", "check", "--quick")
        damaged = [line for line in again.stdout.split("\n") if line.startswith("damaged")]
        if "/blobs/" in kind:  # nobody has what is lost: its image is brought into the store again
            damaged = [line for line in damaged if "image base:latest" not in line]
        assert not damaged, (checked.stdout, repaired, again)
        if images:
            assert world.run("images").returncode == 0
    finally:
        if images:
            shutil.rmtree(world.root / "root/images")
            (world.root / "images").rename(world.root / "root/images")
