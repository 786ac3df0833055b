"""The embedded default image works, wherever its programs come from."""

from __future__ import annotations

import os
import subprocess

import pytest

from minibox.errors import StoreError
from minibox.image.archive.importer import add_image
from minibox.image.builtin import base, programs
from minibox.image.layer.pack import LayerWriter
from minibox.image.store import ImageStore
from tests.images import lowers
from tests.probes import requires


@pytest.fixture
def store(session_directory, tmp_path_factory):
    path = session_directory / tmp_path_factory.mktemp("base").name
    path.mkdir(exist_ok=True)
    return ImageStore(str(path))


def inside(directory, script):
    return subprocess.run(["chroot", directory, "/bin/sh", "-c", script], capture_output=True, text=True, check=False)


@requires("root")
def test_base_is_made_and_works(store):
    image = store.resolve("base")
    (path,) = lowers(store, image)
    assert image.config["config"]["Cmd"] == ["sh"]
    done = inside(path, ". /etc/profile; id -un; id -un nobody; id -u user; echo ~user; which top vi ps; "
                        "stat -c '%a %u' /tmp /var/tmp /root /home/user; cat /etc/os-release; /usr/bin/env true && echo ok")  # fmt: skip
    words = done.stdout.split()
    assert words[:4] == ["root", "nobody", "1000", "/home/user"], done
    assert words[4:7] == ["/usr/sbin/top", "/usr/sbin/vi", "/usr/sbin/ps"] or all("/" in word for word in words[4:7])
    assert words[7:15] == ["1777", "0", "1777", "0", "700", "0", "755", "1000"]
    assert words[-1] == "ok"
    for name in ("proc", "sys", "dev", "run"):
        assert os.path.isdir(f"{path}/{name}")


@requires("root")
def test_base_from_the_hosts_own_binaries(store):
    recipe = base.read_recipe(base.find_recipe("base"))
    found = programs.collect({**recipe["programs"], "sources": ["host-binaries"]})
    _put(store, found)
    (path,) = lowers(store, store.resolve("harvested"))
    done = inside(path, "id -u; ls / | head -1; cat /etc/passwd | grep -c root; echo $((1 + 1)); sed --version")
    assert done.stdout.split()[:4] == ["0", "bin", "1", "2"], done
    assert done.returncode == 0, done.stderr


def test_no_program_at_all_says_what_to_install():
    with pytest.raises(StoreError) as caught:
        programs.collect({"sources": ["host-binaries"], "harvest": ["no-such-program"], "harvest_files": []})
    assert "busybox-static" in (caught.value.hint or "")


def test_static_is_told_from_dynamic(tmp_path):
    assert not programs.is_static(os.path.realpath("/bin/sh"))
    (tmp_path / "script").write_text("#!/bin/sh\n")
    (tmp_path / "cut").write_bytes(b"\x7fELF\2\1\1")
    for name in ("script", "cut", "absent"):
        assert not programs.is_static(str(tmp_path / name))


def _put(store, found):
    import io

    recipe_path = base.find_recipe("base")
    layer = io.BytesIO()
    writer = LayerWriter(layer)
    base.write_skeleton(writer, base.read_recipe(recipe_path), f"{recipe_path}/files")
    for name, content in found.files.items():
        writer.add_file(name, content, 0o755)
    writer.close()
    layer.seek(0)
    add_image(store.layout, "harvested", [layer], {"Cmd": ["sh"]})


@requires("root")
def test_an_empty_image_shows_what_is_mounted_in_it_and_nothing_else(minibox):
    mounts = [
        f"--volume={path}:{path}:ro,noidmap" for path in ("/usr", "/lib", "/lib64", "/bin") if os.path.isdir(path)
    ]
    words = ("run", "--rm", "--network", "none", "--read-only", *mounts, "scratch", "ls", "/", "/etc")
    done = minibox(*words)
    assert done.returncode == 0, done.stderr
    expected = {"/:", "bin", "dev", "etc", "lib", "lib64", "proc", "sys", "usr", "/etc:", "hosts", "hostname"}
    assert set(done.stdout.split()) - {"lib64"} == (expected | {"resolv.conf"}) - {"lib64"}
    assert minibox("run", "--rm", "--network", "none", "scratch", "true").returncode == 127
