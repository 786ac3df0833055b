"""Why a command can't be executed: what the file itself says, one clear line each."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from errno import EACCES, ENOENT, ENOEXEC, ENOMEM
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibox.engine.process.diagnosis import MACHINES, diagnose
from minibox.errors import CommandNotExecutable, CommandNotFound, MiniboxError

HOST = os.uname().machine
HOST_MACHINE = next(number for number, name in MACHINES.items() if name == HOST)
OTHER = next((number, name) for number, name in MACHINES.items() if name != HOST)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Any]:
    """A container's root with /bin; call it to diagnose."""
    (tmp_path / "bin").mkdir()
    root_fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)

    class Root:
        path = tmp_path

        def put(self, path: str, data: bytes, mode: int = 0o755) -> None:
            (tmp_path / path).write_bytes(data)
            (tmp_path / path).chmod(mode)

        def ask(self, errno: int, *paths: str, name: str = "", cwd: str = "/") -> MiniboxError:
            before = set(os.listdir("/proc/self/fd"))
            error = diagnose(errno, name or paths[0], paths, root_fd, cwd)
            assert set(os.listdir("/proc/self/fd")) == before
            assert "\n" not in str(error) and not str(error).endswith(".")
            return error

    yield Root()
    os.close(root_fd)


def elf(machine: int = HOST_MACHINE, loader: bytes = b"", *, bits: int = 64, order: str = "<") -> bytes:
    """The head of an ELF file, elf(5), with a PT_INTERP if it has a loader."""
    ident = b"\x7fELF" + bytes((2 if bits == 64 else 1, 1 if order == "<" else 2, 1)) + bytes(9)
    count = 1 if loader else 0
    if bits == 64:
        at = 64 + 56 * count
        head = struct.pack(order + "HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, count, 0, 0, 0)
        program = struct.pack(order + "IIQQQQQQ", 3, 4, at, 0, 0, len(loader) + 1, 0, 1)
    else:
        at = 52 + 32 * count
        head = struct.pack(order + "HHIIIIIHHHHHH", 2, machine, 1, 0, 52, 0, 0, 52, 32, count, 0, 0, 0)
        program = struct.pack(order + "IIIIIIII", 3, at, 0, 0, len(loader) + 1, 0, 4, 1)
    return ident + head + (program + loader + b"\0" if loader else b"")


def test_a_command_that_is_nowhere(root: Any):
    error = root.ask(ENOENT, "/bin/such", "/usr/bin/such", name="such")
    assert isinstance(error, CommandNotFound) and error.status == 127
    assert str(error) == "exec such: no such command in the image"
    assert error.hint == "minibox looked for it in /bin:/usr/bin"
    assert root.ask(ENOENT, "/bin/such").hint is None


def test_a_link_to_nowhere(root: Any):
    os.symlink("/gone", root.path / "bin/link")
    error = root.ask(ENOENT, "/bin/link")
    assert error.status == 127 and "symlink to a missing file" in str(error)


def test_links_stay_in_the_root(root: Any):
    os.symlink("/bin/tool", root.path / "bin/link")
    root.put("bin/tool", b"", 0o644)
    assert "mode 0644" in str(root.ask(EACCES, "/bin/link"))


def test_no_execute_bit(root: Any):
    root.put("bin/tool", b"#!/bin/sh\n", 0o644)
    error = root.ask(EACCES, "/bin/tool")
    assert isinstance(error, CommandNotExecutable) and error.status == 126
    assert (
        str(error) == "exec /bin/tool: its mode 0644 has no execute bit"
        and error.hint
        and error.hint.startswith("chmod +x")
    )


def test_a_directory(root: Any):
    error = root.ask(EACCES, "/bin")
    assert (str(error), error.status) == ("exec /bin: it is a directory", 126)


def test_no_regular_file(root: Any):
    os.mkfifo(root.path / "bin/fifo", 0o755)
    error = root.ask(EACCES, "/bin/fifo")
    assert (str(error), error.status) == ("exec /bin/fifo: it is not a regular file", 126)


def test_an_empty_file(root: Any):
    root.put("bin/tool", b"")
    error = root.ask(ENOEXEC, "/bin/tool")
    assert (str(error), error.status) == ("exec /bin/tool: it is empty", 126)


def test_neither_program_nor_script(root: Any):
    root.put("bin/tool", b"echo hello\n")
    error = root.ask(ENOEXEC, "/bin/tool")
    assert "neither a program nor a script" in str(error) and error.hint == "if it is a shell script, run: sh /bin/tool"


def test_windows_line_ends(root: Any):
    root.put("bin/tool", b"#!/bin/sh\r\necho\r\n")
    error = root.ask(ENOENT, "/bin/tool")
    assert error.status == 126 and "carriage return" in str(error) and "'/bin/sh'" in str(error)
    assert "dos2unix" in error.hint


def test_an_interpreter_that_is_missing(root: Any):
    root.put("bin/tool", b"#! /usr/bin/python4 -I\n")
    error = root.ask(ENOENT, "/bin/tool")
    assert (str(error), error.status) == ("exec /bin/tool: its interpreter /usr/bin/python4 is not in the image", 126)


def test_an_interpreter_that_is_there_is_not_said_to_be_missing(root: Any):
    root.put("bin/sh", elf())
    root.put("bin/tool", b"#!/bin/sh\n")
    error = root.ask(ENOENT, "/bin/tool")
    assert error.status == 126 and "not in the image" not in str(error) and "/bin/sh" in error.hint


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_program_for_another_machine(root: Any, order: str):
    number, name = OTHER
    root.put("bin/tool", elf(number, order=order))
    error = root.ask(ENOEXEC, "/bin/tool")
    assert str(error) == f"exec /bin/tool: it is a program for {name}, but this host is {HOST}"
    assert error.status == 126 and "qemu" in error.hint


def test_a_program_for_a_machine_without_a_name(root: Any):
    root.put("bin/tool", elf(9999))
    assert "machine 9999" in str(root.ask(ENOEXEC, "/bin/tool"))


@pytest.mark.parametrize("data", [elf()[:10], elf(), b"\x7fELF"])
def test_a_damaged_program(root: Any, data: bytes):
    root.put("bin/tool", data)
    assert root.ask(ENOEXEC, "/bin/tool").status == 126


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_loader_that_is_missing(root: Any, bits: int, order: str):
    root.put("bin/tool", elf(loader=b"/lib/ld-musl.so.1", bits=bits, order=order))
    error = root.ask(ENOENT, "/bin/tool")
    assert (str(error), error.status) == ("exec /bin/tool: its loader /lib/ld-musl.so.1 is not in the image", 126)
    assert error.hint and "statically" in error.hint


def test_a_candidate_further_on_in_the_path(root: Any):
    root.put("bin/tool", b"x", 0o600)
    error = root.ask(EACCES, "/usr/bin/tool", "/bin/tool", name="tool")
    assert str(error).startswith("exec /bin/tool: its mode 0600")


def test_a_relative_path_begins_in_the_working_directory(root: Any):
    root.put("bin/tool", b"x", 0o600)
    assert "mode 0600" in str(root.ask(EACCES, "./tool", cwd="/bin"))


def test_without_a_root_it_says_what_the_kernel_said():
    error = diagnose(EACCES, "tool", ("/bin/tool",), -1, "/")
    assert (str(error), error.status) == ("exec tool: Permission denied (EACCES)", 126)
    assert diagnose(ENOENT, "tool", ("/bin/tool",), -1, "/").status == 127


@given(head=st.sampled_from([b"", b"#!", b"#!\r\n", b"\x7fELF", b"\x7fELF\x01\x01", b"\x7fELF\x02\x01", b"\x7fELF\x02\x02"]),
       tail=st.binary(max_size=120) | st.binary(max_size=40).map(lambda data: b"\xff" * 80 + data),
       errno=st.sampled_from([ENOENT, EACCES, ENOEXEC, ENOMEM]))  # fmt: skip
def test_any_file_gets_one_line(tmp_path_factory: pytest.TempPathFactory, head: bytes, tail: bytes, errno: int):
    directory = tmp_path_factory.mktemp("root")
    (directory / "tool").write_bytes(head + tail)
    (directory / "tool").chmod(0o755)
    root_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        error = diagnose(errno, "/tool", ("/tool",), root_fd, "/")
    finally:
        os.close(root_fd)
    assert error.status in (126, 127) and str(error).startswith("exec /tool: ")
