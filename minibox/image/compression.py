"""Decompression by what the first bytes say: media types in the wild are wrong too often."""

from __future__ import annotations

import io

from minibox.errors import StoreError, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
BZIP2_MAGIC = b"BZh"
XZ_MAGIC = b"\xfd7zXZ\x00"


def compression_of(start: bytes) -> str:
    """``gzip``, ``zstd``, ``bzip2``, ``xz``, or "" for none, from a file's first 6 bytes."""
    for magic, name in ((GZIP_MAGIC, "gzip"), (ZSTD_MAGIC, "zstd"), (BZIP2_MAGIC, "bzip2"), (XZ_MAGIC, "xz")):
        if start.startswith(magic):
            return name
    return ""


def open_decompressed(file: BinaryIO) -> BinaryIO:
    """A reader of ``file``'s plain content; its errors are `StoreError`.

    Raises:
        Unsupported: nothing here can read zstd.
    """
    # A BufferedReader peeks without seeking, so that pipes work.
    buffered = io.BufferedReader(_Raw(file), 1 << 18)
    compression = compression_of(buffered.peek(6)[:6])
    if not compression:
        return buffered
    return _Checked(_decompressor(compression, buffered), compression)  # type: ignore[return-value]


def _decompressor(compression: str, file: BinaryIO) -> BinaryIO:
    if compression == "gzip":
        import gzip

        return gzip.GzipFile(fileobj=file, mode="rb")  # type: ignore[return-value]
    if compression == "bzip2":
        import bz2

        return bz2.BZ2File(file)  # type: ignore[return-value]
    if compression == "xz":
        import lzma

        return lzma.LZMAFile(file)  # type: ignore[return-value]
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]  # Python 3.14

        return zstd.ZstdFile(file)  # type: ignore[no-any-return,unused-ignore]
    except ImportError:
        pass
    try:
        import zstandard  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise Unsupported(
            "read a layer compressed by zstd: no library for it",
            "pip install zstandard, or recompress the image: skopeo copy --dest-compress-format gzip",
        ) from None
    reader: BinaryIO = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
    return reader


class _Raw(io.RawIOBase):
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Checked:
    def __init__(self, file: BinaryIO, compression: str) -> None:
        self._file = file
        self._compression = compression

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)
        except Exception as error:  # each library has its own: zlib.error, LZMAError, ZstdError, EOFError
            raise StoreError(f"damaged {self._compression} data: {error}") from error
