"""Read and write compressed tars. The first bytes tell the compression, since media types are wrong too often.

gzip uses ISA-L if it is installed (isal, for x86-64 and arm64): it reads twice and writes ten times as fast as zlib.
zstd:chunked and eStargz are read as the plain zstd and gzip that they are.
"""

from __future__ import annotations

import hashlib
import queue
import threading

from minibox.errors import MiniboxError, StoreError, Unsupported, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol
else:
    Protocol = object


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Writable(Protocol):
    def write(self, data: Any, /) -> object: ...


MAGIC = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2"), (b"\xfd7zXZ\x00", "xz"))
MAGIC_BYTES = 6
ZSTD_SKIPPABLE = tuple(bytes([number]) + b"\x2a\x4d\x18" for number in range(0x50, 0x60))
READ_BYTES = 1 << 18
PIECE_BYTES_MAX = 1 << 20
XZ_MEMORY_BYTES_MAX = 512 << 20
#: If so little data becomes so much it isn't an image but an attack: a layer of a few MB that fills the disk.
BOMB_BYTES = 4 << 30
BOMB_RATIO = 250
PIECES_WAITING_MAX = 8
THREAD_END_TRIES, THREAD_END_WAIT_S = 100, 0.01
#: Levels fast enough to keep up with packing on one core. gzip's is for ISA-L, where 2 is as good as zlib's 1.
GZIP_LEVEL = 2
ZLIB_LEVEL = 1
ZSTD_LEVEL = 3


def compression_of(start: bytes) -> str:
    """Return ``gzip``, ``zstd``, ``bzip2``, ``xz``, or "" for none, from a file's first 6 bytes."""
    for magic, name in MAGIC:
        if start.startswith(magic):
            return name
    return "zstd" if start.startswith(ZSTD_SKIPPABLE) else ""


def open_decompressed(file: Readable) -> Decompressed:
    """Return a reader of the plain content of ``file``, which may be a pipe.

    Raises:
        Unsupported: no library for its compression is installed.
        OSError: it can't be read.
    """
    return Decompressed(file)


class Decompressed:
    """Reads plain content. Damaged data raises `StoreError`, also at the end if something is missing or left over.

    Attributes:
        compression: see `compression_of`.
    """

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._waiting = b""
        while len(self._waiting) < MAGIC_BYTES and (data := file.read(READ_BYTES)):
            self._waiting += data
        self.compression = compression_of(self._waiting)
        self._decompressor: Any = _decompressor(self.compression) if self.compression else None
        self._left = memoryview(b"")
        self._read_bytes = len(self._waiting)
        self._plain_bytes = 0

    def read(self, size: int) -> bytes:
        """Return the next ``size`` bytes or fewer; ``b""`` at the end."""
        if not self._left:
            self._left = memoryview(self.read_chunk())
        data = bytes(self._left[:size])
        self._left = self._left[size:]
        return data

    def read_chunk(self) -> bytes:
        """Return the next piece, of a convenient size; ``b""`` at the end."""
        if self._decompressor is None:
            waiting, self._waiting = self._waiting, b""
            return waiting or self._file.read(READ_BYTES)
        while not self._decompressor.eof or self._next_member():
            if self._decompressor.needs_input and not self._waiting:
                self._waiting = self._file.read(READ_BYTES)
                self._read_bytes += len(self._waiting)
                if not self._waiting:
                    raise StoreError(f"damaged {self.compression} data: it is cut short")
            if piece := self._decompress():
                return piece
        return b""

    def _decompress(self) -> bytes:
        data, self._waiting = self._waiting, b""
        try:
            piece: bytes = self._decompressor.decompress(data, PIECE_BYTES_MAX)
        except Exception as error:  # each library has its own: zlib.error, IsalError, LZMAError, ZstdError, EOFError
            raise StoreError(f"damaged {self.compression} data: {error}") from error
        self._plain_bytes += len(piece)
        if self._plain_bytes > BOMB_BYTES and self._plain_bytes > BOMB_RATIO * self._read_bytes:
            raise StoreError(
                f"decompression bomb: {self._read_bytes} bytes of {self.compression} data "
                f"have become more than {self._plain_bytes} bytes",
                f"data of more than {BOMB_BYTES >> 30} GiB may be at most {BOMB_RATIO} times its compressed size; "
                "if the data is right, store it uncompressed",
            )
        return piece

    def _next_member(self) -> bool:
        """After the end of a member or frame, begin the next one if there is one. Zeros are padding."""
        rest = self._decompressor.unused_data
        while len(rest := rest.lstrip(b"\0")) < MAGIC_BYTES and (data := self._file.read(READ_BYTES)):
            self._read_bytes += len(data)
            rest += data
        if not rest:
            return False
        if compression_of(rest) != self.compression:
            raise StoreError(f"damaged {self.compression} data: something else follows its end")
        self._decompressor = _decompressor(self.compression)
        self._waiting = rest
        return True


def _decompressor(compression: str) -> Any:
    """Return an object with the interface of `bz2.BZ2Decompressor`."""
    if compression == "gzip":
        try:
            from isal.igzip_lib import DECOMP_GZIP, IgzipDecompressor
        except ImportError:
            return _ZlibDecompressor()
        return IgzipDecompressor(flag=DECOMP_GZIP)
    if compression == "bzip2":
        import bz2

        return bz2.BZ2Decompressor()
    if compression == "xz":
        import lzma

        return lzma.LZMADecompressor(memlimit=XZ_MEMORY_BYTES_MAX)
    return _zstd("read").ZstdDecompressor()


class _ZlibDecompressor:
    def __init__(self) -> None:
        import zlib

        self._stream = zlib.decompressobj(wbits=31)  # with gzip's header and checksum
        self.needs_input = True

    def decompress(self, data: bytes, max_length: int) -> bytes:
        piece = self._stream.decompress(self._stream.unconsumed_tail + data, max_length)
        self.needs_input = len(piece) < max_length
        return piece

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data


def _zstd(what: str) -> Any:
    from importlib import import_module

    for name in ("compression.zstd", "backports.zstd"):  # the first is in Python 3.14
        try:
            return import_module(name)
        except ImportError:
            continue
    raise Unsupported(
        f"{what} zstd: no library for it is installed",
        "pip install backports.zstd, or recompress the image: skopeo copy --dest-compress-format gzip",
    )


def compress(file: Writable, compression: str = "gzip") -> Compressor:
    """Return a writer that compresses data to ``file``; use it in a ``with`` statement.

    The same content gives the same bytes, as long as library and machine stay the same: times aren't stored.

    Args:
        compression: ``gzip``, ``zstd``, or "" for none.

    Raises:
        Unsupported: no library for it is installed.
    """
    return Compressor(file, compression)


class Compressor:
    """See `compress`. Another thread compresses the data and computes the digest.

    Attributes, after the ``with`` block:
        digest: ``sha256:<hex>`` of what was written to the file.
        size_bytes: its size.
    """

    def __init__(self, file: Writable, compression: str) -> None:
        self._file = file
        self._stream: Any = _compressor(compression) if compression else None
        self._pieces: queue.Queue[bytes | None] = queue.Queue(PIECES_WAITING_MAX)
        self._collected = bytearray()
        self._error: BaseException | None = None
        self._aborted = False
        self._hasher = hashlib.sha256()
        self.digest = ""
        self.size_bytes = 0
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Compressor:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._aborted = error is not None
        self._pieces.put(bytes(self._collected))
        self._pieces.put(None)
        self._thread.join()
        if error is None:
            self._check()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take ``data``. An error of writing the file may be raised by a later call or at the end of the block."""
        self._check()
        # Always pass pieces of the same size: ISA-L's output depends on how the data is divided.
        view = memoryview(data)
        while len(self._collected) + len(view) >= READ_BYTES:
            part = READ_BYTES - len(self._collected)
            self._pieces.put(b"".join((self._collected, view[:part])))
            self._collected.clear()
            view = view[part:]
        self._collected += view
        return len(data)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            while (piece := self._pieces.get()) is not None:
                if not self._aborted:
                    self._write(self._stream.compress(piece) if self._stream else piece)
            if self._stream and not self._aborted:
                self._write(self._stream.flush())
            self.digest = "sha256:" + self._hasher.hexdigest()
        except BaseException as error:
            self._error = error
            while self._pieces.get() is not None:  # empty the queue, so that the writer doesn't block
                pass

    def _write(self, data: bytes) -> None:
        self._hasher.update(data)
        self.size_bytes += len(data)
        self._file.write(data)


def _compressor(compression: str) -> Any:
    """Return an object with `compress` and `flush`."""
    if compression == "gzip":
        # Neither writes a name or a time into the header.
        try:
            from isal import isal_zlib
        except ImportError:
            import zlib

            return zlib.compressobj(ZLIB_LEVEL, zlib.DEFLATED, 31)
        return isal_zlib.compressobj(GZIP_LEVEL, isal_zlib.DEFLATED, 31)
    if compression == "zstd":
        zstd = _zstd("write")
        parameter = zstd.CompressionParameter
        return zstd.ZstdCompressor(options={parameter.compression_level: ZSTD_LEVEL, parameter.checksum_flag: 1})
    raise ValueError(f"unknown compression {compression!r}")


class Pump:
    """Reads, decompresses and hashes in its own thread, some pieces ahead; use it in a ``with`` statement.

    Decompression, SHA-256 and writing files all release the GIL, so this keeps two cores busy.
    """

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._pieces: queue.Queue[bytes | BaseException] = queue.Queue(PIECES_WAITING_MAX)
        self._hasher = hashlib.sha256()
        self._ended = False
        self._stopped = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.compression = ""

    def __enter__(self) -> Pump:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._stopped = True
        # The thread may wait to put a piece that nobody will get. If it waits for a pipe, it ends with the process.
        for _ in range(THREAD_END_TRIES):
            with suppress(queue.Empty):
                self._pieces.get_nowait()
            self._thread.join(THREAD_END_WAIT_S)
            if not self._thread.is_alive():
                return

    def read_chunk(self) -> bytes:
        """Return the next piece of plain content; ``b""`` at the end, and at each call after it.

        Raises:
            MiniboxError: the data is damaged.
            OSError: it can't be read.
        """
        if self._ended:
            return b""
        piece = self._pieces.get()
        if not isinstance(piece, bytes):
            self._ended = True
            raise piece
        self._ended = not piece
        return piece

    def digest(self) -> str:
        """Return ``sha256:<hex>`` of the plain content, once you have read to its end."""
        if not self._ended:
            raise RuntimeError("the end was not read")
        return "sha256:" + self._hasher.hexdigest()

    def _work(self) -> None:
        try:
            plain = Decompressed(self._file)
            self.compression = plain.compression
            while not self._stopped:
                piece = plain.read_chunk()
                self._hasher.update(piece)
                self._pieces.put(piece)
                if not piece:
                    return
        except (MiniboxError, OSError) as error:
            self._pieces.put(error)
        except BaseException as error:
            self._pieces.put(StoreError(f"read a layer: {type(error).__name__}: {error}"))
