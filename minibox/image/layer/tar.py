"""Read a tar archive as it streams: ustar, PAX, GNU and the older form, in one pass and without seeking.

Sources: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar manual, "Basic Tar Format" and
"Storing Sparse Files"; where both leave it open, the behaviour of Go's archive/tar, which wrote most existing layers.

Python's `tarfile` reads the same, but takes five times as long: it took more than half of the time for unpacking a
layer. It also takes a broken header in the middle of an archive for the end. Names and all other text stay bytes.
"""

from __future__ import annotations

from minibox.errors import StoreError, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)
REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
#: Other types for a regular file (before ustar; a contiguous file), and GNU's dump of a directory.
SAME_KINDS = {b"\0": REGULAR, b"7": REGULAR, b"D": DIRECTORY}
KINDS = frozenset((REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO))
PAX, PAX_SOLARIS, PAX_GLOBAL, GNU_LONG_NAME, GNU_LONG_LINK, GNU_SPARSE = b"x", b"X", b"g", b"L", b"K", b"S"
GNU_VOLUME_LABEL = b"V"
XATTR = b"SCHILY.xattr."
SPARSE = b"GNU.sparse."
#: The largest extended header, as in Go's reader.
EXTENSION_BYTES_MAX = 1 << 20
EXTENSIONS_IN_A_ROW_MAX = 16
SPARSE_PIECES_MAX = 1 << 16
NUMBER_DIGITS_MAX = 40
SIZE_MAX = (1 << 63) - 1
SECOND_NS = 1_000_000_000


class Entry:
    """One entry of an archive.

    Attributes:
        name: as in the archive, without a slash at the end.
        kind: one of the constants of this module.
        link: the target of a symbolic or hard link.
        mode: the permission bits for chmod(2).
        mtime_ns: nanoseconds since the epoch.
        size: the size of a regular file in bytes; otherwise 0.
        device: major and minor number.
        xattrs: values by name, such as ``security.capability``.
        sparse: for a sparse file, offset and length of each piece in the archive; between them are holes.
    """

    __slots__ = ("device", "gid", "kind", "link", "mode", "mtime_ns", "name", "size", "sparse", "uid", "xattrs")

    def __init__(self, name: bytes, kind: bytes) -> None:
        self.name, self.kind, self.link = name, kind, b""
        self.mode = self.uid = self.gid = self.mtime_ns = self.size = 0
        self.device = (0, 0)
        self.xattrs: dict[bytes, bytes] = NO_XATTRS
        self.sparse: list[tuple[int, int]] | None = None


NO_XATTRS: dict[bytes, bytes] = {}


class TarReader:
    """Reads the entries of an archive, one after the other.

    ``read_chunk`` returns the archive in pieces of any size, ``b""`` at its end. All errors are `StoreError`.
    """

    def __init__(self, read_chunk: Callable[[], bytes]) -> None:
        self._read_chunk = read_chunk
        self._chunk = memoryview(b"")
        self._position = 0
        self._content_left = 0  # bytes of the current entry that are not read yet
        self._padding = 0
        self._globals: dict[bytes, bytes] = {}

    def next(self) -> Entry | None:
        """Return the next entry; None at the end of the archive, after reading everything that follows it."""
        self._skip(self._content_left + self._padding)
        self._content_left = self._padding = 0
        extensions = _Extensions(self._globals)
        for _ in range(EXTENSIONS_IN_A_ROW_MAX):
            block = self._take_block()
            if block is None or block == ZERO_BLOCK:
                if extensions.pending:
                    raise _unsound("it ends after an extended header")
                self._drain()
                return None
            _verify(block)
            kind = block[156:157]
            if kind in KINDS or kind in SAME_KINDS or kind == GNU_SPARSE:
                return self._entry(block, kind, extensions)
            size = _number(block[124:136])
            if kind == GNU_VOLUME_LABEL:
                self._skip(_padded(size))
                continue
            if kind not in (PAX, PAX_SOLARIS, PAX_GLOBAL, GNU_LONG_NAME, GNU_LONG_LINK):
                raise StoreError(f"entry {ascii(_text(block[:100]))} has the unknown type {kind!r}")
            if size > EXTENSION_BYTES_MAX:
                raise _unsound(f"an extended header of {size} bytes is larger than {EXTENSION_BYTES_MAX}")
            data = self._take(_padded(size))[:size]
            if kind == PAX_GLOBAL:
                records = dict(_pax_records(data))
                self._globals.update(records)
                extensions.add_global(records)
            else:
                extensions.add(kind, data)
        raise _unsound(f"more than {EXTENSIONS_IN_A_ROW_MAX} extended headers in a row")

    def content(self) -> Iterator[memoryview]:
        """Yield the current entry's content, piece by piece; for a sparse file, without the holes."""
        while self._content_left:
            available = len(self._chunk) - self._position
            if not available:
                self._refill()
                continue
            taken = min(available, self._content_left)
            start = self._position
            self._position += taken
            self._content_left -= taken
            yield self._chunk[start : start + taken]

    def _entry(self, block: bytes, kind: bytes, extensions: _Extensions) -> Entry:
        name = _text(block[:100])
        magic = block[257:265]
        if magic.startswith(b"ustar\0") and block[345]:
            name = _text(block[345:500]) + b"/" + name
        entry = Entry(name, SAME_KINDS.get(kind, kind))
        entry.link = _text(block[157:257])
        entry.mode = _number(block[100:108]) & 0o7777
        entry.uid = _number(block[108:116])
        entry.gid = _number(block[116:124])
        size = _number(block[124:136])
        entry.mtime_ns = _number(block[136:148]) * SECOND_NS
        if entry.kind in (CHARACTER, BLOCK_DEVICE):
            entry.device = _number(block[329:337]), _number(block[337:345])
        if not extensions.empty:
            size = extensions.apply(entry, size)
        if entry.kind == REGULAR and kind != GNU_SPARSE and entry.name.endswith(b"/"):
            entry.kind = DIRECTORY  # the form before ustar marks a directory with a slash
        entry.name = entry.name.rstrip(b"/") or entry.name[:1]
        if kind == GNU_SPARSE:
            entry.kind = REGULAR
            self._start_content(size)
            entry.size = _number(block[483:495])
            entry.sparse = self._old_gnu_sparse(block)
        elif entry.kind == REGULAR or kind == b"D":
            self._start_content(size)
            if extensions.sparse:
                self._pax_sparse(entry, extensions)
            else:
                entry.size = size
        if entry.sparse is not None:
            _verify_sparse(entry, self._content_left)
        return entry

    def _start_content(self, size: int) -> None:
        if not 0 <= size <= SIZE_MAX:
            raise _unsound(f"an entry has {size} bytes")
        self._content_left = size
        self._padding = -size % BLOCK

    def _old_gnu_sparse(self, block: bytes) -> list[tuple[int, int]]:
        pieces = _sparse_fields(block[386:482])
        extended = block[482]
        while extended:
            # The entry's size doesn't include these blocks.
            more = self._take(BLOCK)
            pieces += _sparse_fields(more[:504])
            extended = more[504]
            if len(pieces) > SPARSE_PIECES_MAX:
                raise _unsound("a sparse file has too many pieces")
        return pieces

    def _pax_sparse(self, entry: Entry, extensions: _Extensions) -> None:
        if extensions.sparse_version != (1, 0):
            entry.sparse = extensions.sparse_map
            return
        # Version 1.0: the map comes before the content, as lines of decimal numbers, padded to a block.
        numbers: list[int] = []
        text = b""
        while len(numbers) < 1 or len(numbers) < 1 + 2 * numbers[0]:
            if b"\n" not in text:
                if self._content_left < BLOCK:
                    raise _unsound("the map of a sparse file is cut short")
                text += self._take(BLOCK)
                self._content_left -= BLOCK
                continue
            line, _, text = text.partition(b"\n")
            numbers.append(_decimal(line))
            if numbers[0] > SPARSE_PIECES_MAX:
                raise _unsound("a sparse file has too many pieces")
        entry.sparse = list(zip(numbers[1::2], numbers[2::2]))

    # ---- bytes ----------------------------------------------------------------------------------

    def _refill(self) -> None:
        chunk = self._read_chunk()
        if not chunk:
            raise _unsound("it is cut short")
        self._chunk, self._position = memoryview(chunk), 0

    def _take_block(self) -> bytes | None:
        """Return the next block; None if the archive ends without an end marker."""
        start = self._position
        end = start + BLOCK
        if end <= len(self._chunk):
            self._position = end
            return bytes(self._chunk[start:end])
        if start == len(self._chunk):
            chunk = self._read_chunk()
            if not chunk:
                return None
            self._chunk, self._position = memoryview(chunk), 0
        return self._take(BLOCK)

    def _take(self, size: int) -> bytes:
        parts = []
        while size:
            available = len(self._chunk) - self._position
            if not available:
                self._refill()
                continue
            taken = min(available, size)
            parts.append(self._chunk[self._position : self._position + taken])
            self._position += taken
            size -= taken
        return b"".join(parts)

    def _skip(self, size: int) -> None:
        while size:
            available = len(self._chunk) - self._position
            if not available:
                self._refill()
                continue
            skipped = min(available, size)
            self._position += skipped
            size -= skipped

    def _drain(self) -> None:
        while self._read_chunk():
            pass
        self._chunk, self._position = memoryview(b""), 0


class _Extensions:
    """The extended headers before an entry."""

    def __init__(self, global_records: dict[bytes, bytes]) -> None:
        self._records = dict(global_records)
        self.empty = not global_records
        self.pending = False
        self._long: dict[bytes, bytes] = {}
        self._pieces: list[bytes] = []

    def add(self, kind: bytes, data: bytes) -> None:
        self.empty, self.pending = False, True
        if kind in (GNU_LONG_NAME, GNU_LONG_LINK):
            self._long[kind] = _text(data)
            return
        for key, value in _pax_records(data):
            # Version 0.0 of sparse files repeats these two records, so their order matters.
            if key in (SPARSE + b"offset", SPARSE + b"numbytes"):
                self._pieces.append(value)
            self._records[key] = value

    def add_global(self, records: dict[bytes, bytes]) -> None:
        self.empty = False
        self._records = {**records, **self._records}

    @property
    def sparse(self) -> bool:
        return any(key.startswith(SPARSE) for key in self._records)

    @property
    def sparse_version(self) -> tuple[int, int]:
        get = self._records.get
        return _decimal(get(SPARSE + b"major", b"0")), _decimal(get(SPARSE + b"minor", b"0"))

    @property
    def sparse_map(self) -> list[tuple[int, int]] | None:
        """The map in versions 0.0 and 0.1; None if there is none, and so no holes."""
        texts = self._pieces
        if SPARSE + b"map" in self._records:
            text = self._records[SPARSE + b"map"]
            texts = text.split(b",") if text else []
        elif not texts:
            return None
        if len(texts) % 2:
            raise _unsound("the map of a sparse file has an odd number of values")
        numbers = [_decimal(each) for each in texts]
        return list(zip(numbers[::2], numbers[1::2]))

    def apply(self, entry: Entry, size: int) -> int:
        """Change ``entry``, and return the size of its content, which is ``size`` in its own header."""
        entry.name = self._long.get(GNU_LONG_NAME, entry.name)
        entry.link = self._long.get(GNU_LONG_LINK, entry.link)
        xattrs = {}
        for key, value in self._records.items():
            if key.startswith(XATTR):
                xattrs[key[len(XATTR) :]] = value
            elif not value:
                continue  # an empty value means that there is no record
            elif key == b"path":
                entry.name = value
            elif key == b"linkpath":
                entry.link = value
            elif key == b"size":
                size = _decimal(value)
            elif key == b"uid":
                entry.uid = _decimal(value)
            elif key == b"gid":
                entry.gid = _decimal(value)
            elif key == b"mtime":
                entry.mtime_ns = _time_ns(value)
        if xattrs:
            entry.xattrs = xattrs
        real_size = self._records.get(SPARSE + b"realsize") or self._records.get(SPARSE + b"size")
        entry.size = _decimal(real_size) if real_size else size
        entry.name = self._records.get(SPARSE + b"name") or entry.name
        return size


def _verify(block: bytes) -> None:
    """Verify a header's checksum: the sum of all bytes, with its own as blanks. Old writers added signed bytes."""
    checksum = _number(block[148:156])
    total = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    if checksum != total:
        signed = total - 256 * sum(byte > 127 for byte in block[:148] + block[156:])
        if checksum != signed:
            raise _unsound("a header's checksum is wrong")


def _number(field: bytes) -> int:
    """Parse octal digits, or GNU's form for large numbers: binary, marked by the first bit."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=False) & ((1 << (8 * len(field) - 1)) - 1)
        # The next bit is the sign, in two's complement.
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    digits = field.partition(b"\0")[0].strip(b" ")
    if not digits:
        return 0
    with suppress(ValueError):
        if digits.isdigit():
            return int(digits, 8)
    raise _unsound(f"{field!r} is not a number")


def _decimal(text: bytes) -> int:
    digits = text[1:] if text.startswith(b"-") else text
    if not digits.isdigit() or len(digits) > NUMBER_DIGITS_MAX:
        raise _unsound(f"{text[:NUMBER_DIGITS_MAX]!r} is not a number")
    return int(text)


def _time_ns(text: bytes) -> int:
    """Parse seconds with any number of decimals: ``1700000000.123456789``."""
    seconds, _, decimals = text.partition(b".")
    whole = _decimal(seconds) * SECOND_NS
    if not decimals:
        return whole
    fraction = _decimal(decimals[:9].ljust(9, b"0"))
    return whole - fraction if text.startswith(b"-") else whole + fraction


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _padded(size: int) -> int:
    if not 0 <= size <= SIZE_MAX:
        raise _unsound(f"an entry has {size} bytes")
    return size + -size % BLOCK


def _pax_records(data: bytes) -> list[tuple[bytes, bytes]]:
    """Parse records ``LENGTH KEY=VALUE\\n``, where LENGTH counts all of it. Keep their order and duplicates."""
    records = []
    position = 0
    while position < len(data):
        blank = data.find(b" ", position, position + 20)
        digits = data[position:blank] if blank >= 0 else b""
        end = position + int(digits) if digits.isdigit() else 0
        key, equals, value = data[blank + 1 : end].partition(b"=")
        if not blank < end <= len(data) or not equals or not key or not value.endswith(b"\n"):
            raise _unsound("a record of an extended header is malformed")
        value = value[:-1]
        if b"\0" in key or (b"\0" in value and not key.startswith(XATTR)):
            raise _unsound(f"the record {key[:100]!r} of an extended header contains a NUL")
        records.append((key, value))
        position = end
    return records


def _sparse_fields(data: bytes) -> list[tuple[int, int]]:
    pieces = []
    for start in range(0, len(data), 24):
        if not data[start]:
            break
        pieces.append((_number(data[start : start + 12]), _number(data[start + 12 : start + 24])))
    return pieces


def _verify_sparse(entry: Entry, content_bytes: int) -> None:
    end = total = 0
    for offset, length in entry.sparse or ():
        if offset < end or length < 0:
            raise _unsound(f"the pieces of the sparse file {ascii(entry.name)} overlap")
        end = offset + length
        total += length
    if end > entry.size or entry.size > SIZE_MAX or total != content_bytes:
        raise _unsound(f"the pieces of the sparse file {ascii(entry.name)} don't fit its size")


def _unsound(what: str) -> StoreError:
    return StoreError(f"not a valid tar archive: {what}")
