"""Compressed data: what is whole is read, what is damaged is said to be, and what is written is the same each time."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minibox.errors import StoreError, Unsupported
from minibox.image.layer import compression
from minibox.image.layer.compression import Pump, compress, open_decompressed


def by_zstd(data: bytes) -> bytes:
    file = io.BytesIO()
    with compress(file, "zstd") as out:
        out.write(data)
    return file.getvalue()


WRITERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zstd": by_zstd,
}  # fmt: skip
DATA = os.urandom(300_000) + bytes(3_000_000) + b"text " * 100_000
SKIPPABLE = b"\x5a\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"chunk"


def plain(data: bytes) -> bytes:
    reader = open_decompressed(io.BytesIO(data))
    return b"".join(iter(reader.read_chunk, b""))


@pytest.fixture(params=["isal", "zlib"])
def gzip_library(request, monkeypatch):
    if request.param == "zlib":
        monkeypatch.setitem(sys.modules, "isal", None)
        monkeypatch.setitem(sys.modules, "isal.igzip_lib", None)
    else:
        pytest.importorskip("isal")
    return request.param


@pytest.mark.parametrize("kind", WRITERS)
def test_each_compression_is_read(kind, gzip_library):
    data = WRITERS[kind](DATA)
    assert open_decompressed(io.BytesIO(data)).compression == kind
    assert plain(data) == DATA
    assert plain(data + data) == DATA + DATA, "several members or frames"
    assert plain(data + bytes(1000)) == DATA, "padding"
    assert plain(WRITERS[kind](b"")) == b""


@pytest.mark.parametrize("kind", WRITERS)
def test_damage_is_an_error(kind, gzip_library):
    data = WRITERS[kind](DATA)
    for damaged in (data[:7], data[: len(data) // 2], data[:-1], data + b"rubbish", data + data[:20]):
        with pytest.raises(StoreError, match=f"damaged {kind} data"):
            plain(damaged)
    changed = bytearray(data)
    changed[len(data) // 3] ^= 0x10
    try:
        assert plain(bytes(changed)) != DATA
    except StoreError as error:
        assert "\n" not in str(error)


def test_plain_data_is_passed_on():
    for data in (b"", b"a", DATA):
        assert open_decompressed(io.BytesIO(data)).compression == ""
        assert plain(data) == data


def test_zstd_chunked_is_plain_zstd():
    """Its index is in skippable frames, which may stand in front too."""
    data = by_zstd(DATA)
    assert plain(data + SKIPPABLE) == DATA
    assert plain(SKIPPABLE + data + SKIPPABLE + data) == DATA + DATA


def test_without_a_library_for_zstd_there_is_a_hint(monkeypatch):
    data = by_zstd(DATA)
    for name in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(Unsupported, match="read zstd") as caught:
        open_decompressed(io.BytesIO(data))
    assert "pip install" in (caught.value.hint or "")


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_bomb_is_defused(kind, monkeypatch):
    monkeypatch.setattr(compression, "BOMB_BYTES", 1 << 20)
    bomb = WRITERS[kind](bytes(64 << 20))
    reader = open_decompressed(io.BytesIO(bomb))
    read = 0
    with pytest.raises(StoreError, match="decompression bomb") as caught:
        while piece := reader.read_chunk():
            read += len(piece)
    assert read < 20 << 20
    assert "uncompressed" in (caught.value.hint or "")
    monkeypatch.setattr(compression, "BOMB_BYTES", 65 << 20)
    assert len(plain(bomb)) == 64 << 20


@settings(max_examples=200)
@given(st.sampled_from(sorted(WRITERS)), st.data())
def test_any_bytes_behind_the_magic_are_read_or_refused(kind, data):
    start = WRITERS[kind](b"x" * 100)
    cut = data.draw(st.integers(4, len(start)))
    try:
        plain(start[:cut] + data.draw(st.binary(max_size=60)))
    except StoreError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("kind", ["gzip", "zstd", ""])
def test_written_data_is_the_same_each_time_and_others_read_it(kind, gzip_library):
    written = set()
    for size in (1, 1000, 1 << 20, len(DATA)):
        file = io.BytesIO()
        with compress(file, kind) as out:
            for start in range(0, len(DATA), size) if size > 1 else range(0):
                out.write(memoryview(DATA)[start : start + size])
            if size == 1:
                out.write(DATA)
        written.add((file.getvalue(), out.digest, out.size_bytes))
    ((data, digest, size_bytes),) = written
    assert plain(data) == DATA
    assert size_bytes == len(data)
    import hashlib

    assert digest == "sha256:" + hashlib.sha256(data).hexdigest()
    if kind == "gzip":
        assert data[3] == 0 and data[4:8] == bytes(4), "no name and no time in the header"
        assert subprocess.run(["gzip", "-dc"], input=data, capture_output=True, check=True).stdout == DATA


def test_error_of_the_file_ends_the_writing():
    before = set(threading.enumerate())

    class Full:
        def write(self, data: object) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"), compress(Full()) as out:
        for _ in range(1000):
            out.write(os.urandom(1 << 18))
    with pytest.raises(KeyError), compress(io.BytesIO()) as out:
        out.write(b"x")
        raise KeyError
    assert set(threading.enumerate()) <= before


def test_pump_ends_with_its_block_wherever_it_is():
    before = set(threading.enumerate())
    for read in (0, 1, 3):
        with Pump(io.BytesIO(os.urandom(64 << 20))) as pump:
            for _ in range(read):
                assert pump.read_chunk()
        assert set(threading.enumerate()) <= before
    with pytest.raises(StoreError, match="damaged gzip"), Pump(io.BytesIO(gzip.compress(DATA)[:-1])) as pump:
        while pump.read_chunk():
            pass
    assert pump.read_chunk() == b""


def test_pump_does_not_wait_for_a_pipe_that_says_no_more():
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as file, open(writer, "wb"):
        with Pump(file):
            pass
