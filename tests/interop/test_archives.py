"""Archives between minibox, podman, skopeo and umoci, in both directions, and trees compared file by file."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from minibox.image.layer.unpack import unpack
from minibox.image.store import ImageStore
from tests.conftest import Run
from tests.probes import requires

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep, capabilities(7)
DOCKERFILE = """
FROM docker.io/library/base:latest
RUN mkdir -p /srv/kept /srv/emptied/deep && echo 1 > /srv/kept/a && ln /srv/kept/a /srv/kept/b \
 && echo 1 > /srv/emptied/old && echo 1 > /srv/gone && chmod 4755 /srv/kept/a && chown 7:8 /srv/kept
RUN rm /srv/gone && rm -r /srv/emptied && mkdir /srv/emptied && echo 2 > /srv/emptied/new && rm /srv/kept/b
CMD ["sh", "-c", "cd /srv; ls; ls kept emptied; stat -c '%u:%g %a %n' kept kept/a"]
"""
LISTED = "emptied\nkept\nemptied:\nnew\n\nkept:\na\n7:8 755 kept\n0:0 4755 kept/a\n"


def run(*command: str | Path, **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


@requires("root", "command:podman", "command:skopeo")
def test_podman_loads_builds_on_and_saves(minibox: Run, state: Path, podman: list[str], tmp_path: Path) -> None:
    assert minibox("save", "-o", f"{tmp_path}/base.tar", "base").returncode == 0
    assert "docker.io/library/base:latest" in run(*podman, "load", "--quiet", "--input", f"{tmp_path}/base.tar")
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    build = ["build", "--quiet", "--isolation", "chroot", "--network", "host", "--pull=never", "--layers"]
    run(*podman, *build, "--tag", "localhost/app:1", tmp_path)
    for form in ("docker-archive", "oci-archive"):
        run(*podman, "save", "--quiet", "--format", form, "--output", f"{tmp_path}/{form}.tar", "localhost/app:1")
        loaded = minibox("load", "-i", f"{tmp_path}/{form}.tar")
        assert (loaded.returncode, loaded.stdout) == (0, "Loaded image: localhost/app:1\n"), loaded.stderr
        done = minibox("run", "--rm", "--network", "none", "localhost/app:1")
        assert done.stdout == LISTED, done.stderr
        assert minibox("rmi", "localhost/app:1").returncode == 0
    run("skopeo", "copy", "--insecure-policy", "--dest-compress-format", "zstd", f"docker-archive:{tmp_path}/docker-archive.tar",
        f"oci-archive:{tmp_path}/zstd.tar:localhost/app:zstd")  # fmt: skip
    assert minibox("load", "-q", "-i", f"{tmp_path}/zstd.tar").returncode == 0
    assert minibox("run", "--rm", "--network", "none", "localhost/app:zstd", "cat", "/srv/emptied/new").stdout == "2\n"


@requires("root", "command:podman", "command:skopeo")
def test_peers_take_what_fits_from_a_builds_archive_of_several_platforms(
    minibox: Run, podman: list[str], tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /\n")
    for each in ("amd64", "arm64"):
        (tmp_path / each).write_text(each)
    archive = f"{tmp_path}/both.tar"
    platforms = ("--platform", "linux/amd64,linux/arm64")
    built = minibox("build", "-t", "both:1", *platforms, "-o", f"type=oci,dest={archive}", str(tmp_path))
    assert built.returncode == 0, built.stderr
    index = json.loads(run("skopeo", "inspect", "--raw", f"oci-archive:{archive}"))
    assert [each["platform"]["architecture"] for each in index["manifests"]] == ["amd64", "arm64"]
    for each in ("amd64", "arm64"):
        inspect = ("skopeo", "--override-arch", each, "inspect", "--config", f"oci-archive:{archive}")
        assert json.loads(run(*inspect))["architecture"] == each
    run("skopeo", "copy", "--insecure-policy", "--all", f"oci-archive:{archive}", f"oci:{tmp_path}/copied")
    copied = json.loads(run("skopeo", "inspect", "--raw", f"oci:{tmp_path}/copied"))  # it packs layers again
    assert [each["platform"] for each in copied["manifests"]] == [each["platform"] for each in index["manifests"]]
    assert "both:1" in run(*podman, "load", "--quiet", "--input", archive)
    found = json.loads(run(*podman, "image", "inspect", "docker.io/library/both:1"))[0]
    assert found["Architecture"] == "amd64"


def make_tree(root: Path) -> None:
    """What layers are made of, in a root file system that umoci has unpacked."""
    (root / "srv/d").mkdir(parents=True)
    (root / "srv/d/f").write_bytes(b"x" * 5000)
    os.link(root / "srv/d/f", root / "srv/hard")
    os.symlink("../d/f", root / "srv/s")
    (root / "srv/cap").write_bytes(b"program")
    os.setxattr(root / "srv/cap", "security.capability", CAPABILITY)
    os.setxattr(root / "srv/d", "user.note", b"\0binary\xff")
    os.mknod(root / "srv/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mkfifo(root / "srv/fifo")
    (root / ("srv/" + "long" * 60)).write_bytes(b"")
    (root / os.fsdecode(b"srv/\xffname")).write_bytes(b"")
    with open(root / "srv/holes", "wb") as file:
        file.truncate(1 << 20)
    os.chown(root / "srv/d/f", 1000, 70_000)
    (root / "srv/d/f").chmod(0o6711)
    (root / "srv/gone").mkdir()
    (root / "srv/gone/f").write_text("1")
    (root / "srv/again").mkdir()
    (root / "srv/again/old").write_text("1")


def set_times(root: Path, time_s: int) -> None:
    """Whole seconds: umoci writes no others, and rounds."""
    for path in [*root.rglob("*"), root]:
        os.utime(path, (time_s, time_s), follow_symlinks=False)


def listing(root: Path) -> dict[str, tuple[object, ...]]:
    """All that an image says of its files."""
    found: dict[str, tuple[object, ...]] = {}
    for path in root.rglob("*"):
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        content = os.readlink(path) if kind == stat.S_IFLNK else path.read_bytes() if kind == stat.S_IFREG else b""
        xattrs = {name: os.getxattr(path, name, follow_symlinks=False)
                  for name in os.listxattr(path, follow_symlinks=False)
                  if not name.startswith(("user.umoci.", "user.rootlesscontainers"))}  # fmt: skip
        links = status.st_nlink if kind == stat.S_IFREG else 0
        found[str(path.relative_to(root))] = (
            kind, status.st_mode, status.st_uid, status.st_gid, status.st_rdev, int(status.st_mtime), links, content,
            tuple(sorted(xattrs.items())),
        )  # fmt: skip
    return found


@requires("root", "command:umoci", "command:skopeo")
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_umocis_image_is_unpacked_as_umoci_does(minibox: Run, state: Path, tmp_path: Path, compression: str) -> None:
    layout = f"{state}/layout"
    run("umoci", "init", "--layout", layout)
    run("umoci", "new", "--image", f"{layout}:1")
    run("umoci", "unpack", "--image", f"{layout}:1", state / "bundle")
    root = state / "bundle/rootfs"
    make_tree(root)
    set_times(root, 1000)
    run("umoci", "repack", "--refresh-bundle", "--image", f"{layout}:1", state / "bundle")
    run("rm", "-r", root / "srv/gone", root / "srv/again", root / "srv/hard")
    (root / "srv/again").mkdir()
    (root / "srv/again/new").write_text("2")
    set_times(root, 2000)
    run("umoci", "repack", "--refresh-bundle", "--image", f"{layout}:1", state / "bundle")
    flags = ["--insecure-policy", "--dest-compress-format", compression]
    run("skopeo", "copy", *flags, f"oci:{layout}:1", f"oci-archive:{tmp_path}/app.tar:team/app:1")
    loaded = minibox("load", "-i", f"{tmp_path}/app.tar")
    assert loaded.stdout == "Loaded image: team/app:1\n", loaded.stderr
    store = ImageStore(f"{state}/root" if (state / "root/images").exists() else str(state))
    image = store.resolve("team/app:1")
    whole = state / "whole"
    whole.mkdir()
    for source in store.layer_sources(image):
        with open(source.blob_path, "rb") as blob:
            unpack(blob, str(whole), diff_id=source.diff_id, form="apply")
    expected = listing(root)
    assert expected["srv/cap"][-1] == (("security.capability", CAPABILITY),)
    assert listing(whole) == expected
    # And what minibox saves of it is what umoci unpacks again.
    assert minibox("save", "-o", f"{tmp_path}/again.tar", "team/app:1").returncode == 0
    for transport in ("docker-archive", "oci-archive"):
        seen = json.loads(run("skopeo", "inspect", f"{transport}:{tmp_path}/again.tar"))
        assert len(seen["Layers"]) == 2
    run("skopeo", "copy", "--insecure-policy", f"docker-archive:{tmp_path}/again.tar", f"oci:{layout}:again")
    run("umoci", "unpack", "--image", f"{layout}:again", state / "second")
    assert listing(state / "second/rootfs") == expected
