"""What a container can write, the host reads with a limit, from regular files only, and at nobody else's expense."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

import minibox
from minibox import aio
from tests.conftest import Run
from tests.container_box import Box
from tests.images import derive, file
from tests.leaks import SLOWNESS
from tests.probes import requires

#: Far more than the command needs, and far less than what the files here pretend to have.
MEMORY_BYTES = 1 << 30
HUGE = "3G"
SPOILT = {
    "huge": f"truncate -s {HUGE} /etc/passwd",
    "endless": "ln -sf /dev/zero /etc/passwd",
    "fifo": "rm /etc/passwd; mkfifo /etc/passwd",
    "directory": "rm /etc/passwd; mkdir /etc/passwd",
}


def little_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


@requires("root")
@pytest.mark.parametrize("how", SPOILT)
def test_exec_reads_no_user_database_that_is_none(how: str, any_box: Box) -> None:
    any_box.start("web", f"{SPOILT[how]}; echo ready; exec sleep 1000")
    any_box.until_logged("web", "ready")
    why = any_box.refused("exec", "-u", "nobody", "web", "true", preexec_fn=little_memory)
    assert re.search("read /etc/passwd of the container: (not a regular file|larger than)", why)
    assert any_box.ok("exec", "web", "echo", "goes on") == "goes on"


@requires("root")
@pytest.mark.parametrize("how", SPOILT)
def test_nor_does_the_api(how: str, api: None) -> None:
    with minibox.Sandbox("base") as box:
        box.run(["sh", "-c", SPOILT[how]], check=True)
        for attempt in (
            lambda: box.run(["true"], user="nobody"),
            lambda: box.write_file("/new", b"text", user="nobody"),
        ):
            with pytest.raises(
                minibox.MiniboxError, match="read /etc/passwd of the container: (not a regular file|larger than)"
            ):
                attempt()
        box.write_file("/new", b"text")
        assert box.read_file("/new") == b"text"


@requires("root")
@pytest.mark.parametrize(
    "passwd",
    [
        file("etc/passwd", bytes(17 << 20)),
        device := tarfile.TarInfo("etc/passwd"),
        pipe := tarfile.TarInfo("etc/passwd"),
    ],
    ids=["huge", "device", "fifo"],
)
def test_an_image_s_user_database_is_read_with_the_same_limit(passwd: Any, minibox: Run, state: Path) -> None:
    derive(state / "root", "spoilt", passwd)
    done = minibox("run", "--rm", "--network", "none", "-u", "nobody", "spoilt", "true", preexec_fn=little_memory)
    assert done.returncode == 125
    assert re.search("read /etc/passwd of the image: (not a regular file|larger than .*)\n$", done.stderr), "no hint"


device.type, device.devmajor, device.devminor = tarfile.CHRTYPE, 1, 5  # as /dev/zero
pipe.type = tarfile.FIFOTYPE


@requires("root")
def test_a_command_that_is_a_device_is_not_opened(minibox: Run, state: Path) -> None:
    """To open some has effects, of a watchdog, say."""
    node = tarfile.TarInfo("opt/none")
    node.type, node.mode, node.devmajor, node.devminor = tarfile.CHRTYPE, 0o755, 1, 200  # to open it fails
    derive(state / "root", "spoilt", node)
    done = minibox("run", "--rm", "--network", "none", "--userns", "host", "spoilt", "/opt/none")
    assert (done.returncode, "it is not a regular file" in done.stderr) == (126, True)


@requires("root")
def test_a_huge_file_is_refused_by_name(api: None) -> None:
    with minibox.Sandbox("base") as box:
        box.run(["truncate", "-s", HUGE, "/huge"], check=True)
        with pytest.raises(minibox.MiniboxError, match="read /huge in sandbox .*larger than 67108864 bytes") as caught:
            box.read_file("/huge")
        assert caught.value.hint and "get" in caught.value.hint
        box.write_file("/some", b"12345")
        assert box.read_file("/some", limit_bytes=5) == b"12345"
        with pytest.raises(minibox.MiniboxError, match="larger than 4 bytes"):
            box.read_file("/some", limit_bytes=4)
        with pytest.raises(minibox.MiniboxError, match="not a regular file"):
            box.write_file("/dev/zero", b"")

    async def awaited() -> None:
        async with aio.Sandbox("base") as box:
            await box.write_file("/some", b"12345")
            assert await box.read_file("/some", limit_bytes=5) == b"12345"
            with pytest.raises(minibox.MiniboxError, match="larger than 4 bytes"):
                await box.read_file("/some", limit_bytes=4)

    asyncio.run(awaited())


@pytest.fixture
def net(box: Box) -> Any:
    """A network, which goes after the containers on it."""
    box.ok("network", "create", "net")
    yield "net"
    box.ok("rm", "-f", "-a")
    box.ok("network", "rm", "net")


def member(box: Box, net: str, name: str, script: str, *options: str) -> str:
    words = ("run", "-d", "--name", name, "--network", net, *options, "base", "sh", "-c")
    container_id = box.ok(*words, f"{script}; echo ready; exec sleep 1000")
    box.until_logged(name, "ready")
    return container_id


@requires("root", "command:nft")
@pytest.mark.parametrize("size", ["1000G", "300k"])
def test_a_hosts_file_that_is_spoilt_costs_nobody_else_anything(size: str, box: Box, net: str, state: Path) -> None:
    bad = member(box, net, "spoilt", f"truncate -s {size} /etc/hosts /etc/resolv.conf")
    member(box, net, "sound", "true")
    limited = {"preexec_fn": little_memory}
    assert "Name:\tsound" in box.ok("run", "--rm", "--network", net, "base", "nslookup", "sound", **limited)
    assert "Name:\tspoilt" in box.ok("exec", "sound", "nslookup", "spoilt")
    for name in ("hosts", "resolv.conf"):
        assert os.stat(state / "root/containers" / bad / name).st_blocks * 512 < 1 << 20
    box.ok("network", "disconnect", net, "spoilt", **limited)
    box.ok("network", "connect", net, "spoilt", **limited)
    assert "Name:\tspoilt" in box.ok("exec", "sound", "nslookup", "spoilt")
    box.ok("rm", "-f", "spoilt", **limited)
    assert box("exec", "sound", "nslookup", "spoilt").returncode != 0


@requires("root", "command:nft")
def test_what_a_member_has_put_there_itself_stays(box: Box, net: str) -> None:
    member(box, net, "one", "printf '10.9.8.7 own\\n\\n# \\f mine' >> /etc/hosts")
    before = box.ok("exec", "one", "cat", "/etc/hosts")
    member(box, net, "two", "true")
    box.ok("rm", "-f", "two")
    assert box.ok("exec", "one", "cat", "/etc/hosts") == before


@requires("root")
def test_a_log_is_searched_in_pieces(api: None) -> None:
    """Of a text that lies across two of them, too."""
    script = "yes 0123456789abcdef | head -c 3000003; printf 'rea'; sleep 0.2; echo dy; exec sleep 1000"
    with minibox.Sandbox("base", ["sh", "-c", script]) as box:
        box.wait_for(log="ready", timeout=50)


@requires("root", "command:nft")
def test_what_a_pipe_holds_of_it_outlasts_the_member(box: Box, net: str, minibox_command: list[str]) -> None:
    """`cat` gives the pages of the file itself to a pipe (sendfile(2)), which is read when the container has ended."""
    words = [*minibox_command, "run", "--rm", "--network", net, "base", "cat", "/etc/hosts"]
    environment = {
        name: str(box.directory / place) for name, place in (("MINIBOX_ROOT", "root"), ("MINIBOX_RUNROOT", "run"))
    }
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as output:
        subprocess.run(words, stdout=writer, check=True, env={**os.environ, **environment}, timeout=60 * SLOWNESS)
        os.close(writer)
        shown = output.read().decode()
    assert "localhost" in shown and "\0" not in shown
