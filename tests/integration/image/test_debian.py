"""The recipe of the Debian image: a real one, and a clear word when it can't be made."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from minibox.image.store import ImageStore
from minibox.linux.removal import remove_tree
from tests.images import lowers
from tests.probes import requires
from tests.registries import docker_registry

MAKE = str(Path(__file__).parents[3] / "rootfs/debian/make")


@requires("root")
@pytest.mark.parametrize(
    ("tools", "said"), [((), "neither mmdebstrap nor debootstrap"), (("mmdebstrap",), "there is no apt-get")]
)
def test_missing_tools_are_named(tmp_path, tools, said):
    for name in ("sh", "dirname", "id", "awk", *tools):
        path = shutil.which(name)
        if path is None:
            pytest.skip(f"needs {name}")
        os.symlink(path, tmp_path / name)
    done = subprocess.run(["/bin/sh", MAKE], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert said in done.stderr and "hint: " in done.stderr


@requires("user")
def test_ordinary_user_is_told_to_be_root(tmp_path):
    from tests import isolation

    done = subprocess.run(
        ["/bin/sh", "-s"], input=Path(MAKE).read_text(), user=isolation.USER_ID, group=isolation.USER_ID,
        extra_groups=[], cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "must be made as root" in done.stderr


@pytest.mark.not_in_vm("a network")
@requires("root", "internet", "command:mmdebstrap", "command:apt-get", "command:docker-registry")
def test_debian_is_made_and_works_and_travels(session_directory, host_netns, minibox):
    """debootstrap'd Debian -> import -> push -> pull elsewhere -> run."""
    root = session_directory / "debian"
    environment = {**os.environ, "MINIBOX_ROOT": str(root), "TMPDIR": str(session_directory)}
    done = subprocess.run(
        ["nsenter", f"--net={host_netns}", MAKE, "bookworm"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("debian:12 sha256:")
    store = ImageStore(str(root))
    (path,) = lowers(store, store.resolve("debian:12"))
    seen = subprocess.run(["chroot", path, "bash", "-c", ". /etc/os-release; echo $ID $VERSION_ID; dpkg -s bash | grep Status"],
                          capture_output=True, text=True, check=True).stdout  # fmt: skip
    assert seen == "debian 12\nStatus: install ok installed\n"
    elsewhere = session_directory / "elsewhere"
    with docker_registry(session_directory / "registry") as host:
        for words in (("tag", "debian:12", f"{host}/debian:12"), ("push", f"{host}/debian:12")):
            assert minibox(*words, env={"MINIBOX_ROOT": str(root)}).returncode == 0
        ran = minibox("run", "--rm", "--network", "none", f"{host}/debian:12", "apt-get", "--version",
                      env={"MINIBOX_ROOT": str(elsewhere)})  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("apt 2.")
    pulled = ImageStore(str(elsewhere))
    assert pulled.resolve(f"{host}/debian:12").digest == store.resolve("debian:12").digest
    (copy,) = lowers(pulled, pulled.resolve(f"{host}/debian:12"))
    assert tar_digest(copy) == tar_digest(path)
    remove_tree(str(root))
    remove_tree(str(elsewhere))


def tar_digest(directory: str) -> str:
    """Of all content and metadata."""
    words = ["tar", "--create", "--sort=name", "--numeric-owner", "--xattrs", "--xattrs-include=*",
             "--pax-option=exthdr.name=x,delete=atime,delete=ctime", "."]  # fmt: skip
    with subprocess.Popen(words, cwd=directory, stdout=subprocess.PIPE) as tar:
        assert tar.stdout
        digest = hashlib.file_digest(tar.stdout, "sha256").hexdigest()  # type: ignore[arg-type]
    assert tar.returncode == 0
    return digest
