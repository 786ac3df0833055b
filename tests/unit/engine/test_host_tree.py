"""Which overlays a trial has: from a host's mounts to parts, as root and as an ordinary user."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minibox.engine.trial.host_tree import HostTree, Mounted, Part, _Finder
from minibox.errors import Unsupported
from minibox.plan.operations import NOEXEC, RDONLY


def found(
    over: Path, mounts: list[Mounted], uid: int, monkeypatch: pytest.MonkeyPatch, writable: tuple[str, ...] = ()
) -> HostTree:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    return _Finder(str(over), mounts).find(writable)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    for path in ("proc", "sys", "dev/pts", "home/me", "home/you", "usr/bin", "run/user", "boot/efi"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "file").write_text("x")
    return tmp_path


def mounted(host: Path, path: str, fstype: str = "ext4", attributes: int = 0) -> Mounted:
    return Mounted(f"{host}/{path}".rstrip("/"), fstype, attributes)


def test_root_has_an_overlay_for_each_mount(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = [
        mounted(host, "", attributes=RDONLY), mounted(host, "proc", "proc"), mounted(host, "dev/pts", "devpts"),
        mounted(host, "home", attributes=NOEXEC), mounted(host, "boot/efi", "vfat"), mounted(host, "run/user", "autofs"),
        Mounted(f"{host}/run/socket", "tmpfs", is_directory=False),
        Mounted(f"{host}/covered", "ext4", is_visible=False),
    ]  # fmt: skip
    tree = found(host, mounts, 0, monkeypatch)
    assert tree.parts == (Part("/", str(host), RDONLY), Part("/home", f"{host}/home", NOEXEC))
    assert tree.read_only == ("/boot/efi",)
    assert [path for path, _ in tree.hidden] == ["/run/socket"]


def test_an_ordinary_user_has_a_skeleton_where_mounts_lie_below(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = [mounted(host, ""), mounted(host, "proc", "proc"), mounted(host, "run/user", "tmpfs")]
    tree = found(host, mounts, 1000, monkeypatch, (f"{host}/home/me", "/elsewhere"))
    assert [(part.path, part.lower.removeprefix(str(host))) for part in tree.parts] == [
        ("/", ""), ("/boot", "/boot"), ("/home", "/home"), ("/home/me", "/home/me"), ("/run/user", "/run/user"),
        ("/usr", "/usr"),
    ]  # fmt: skip
    assert ("/bin", "usr/bin") in tree.bones and ("/file", "") in tree.bones and ("/proc", "") in tree.bones
    alone = found(host / "usr", [], 1000, monkeypatch)
    assert alone.parts == (Part("/", f"{host}/usr"),) and not alone.bones


def test_too_many_overlays_are_refused(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(500):
        (host / f"d{number}").mkdir()
    with pytest.raises(Unsupported, match="more than 400 overlays"):
        found(host, [mounted(host, "home")], 1000, monkeypatch)
