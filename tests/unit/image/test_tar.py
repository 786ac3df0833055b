"""The tar reader: reads what others write, in every form, and never more than an error for what nobody writes."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minibox.errors import StoreError
from minibox.image.layer import tar
from tests.unit.layers import directory, entry, hard_link, symlink
from tests.unit.layers import tar as make_tar

FORMATS = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT}


def read(data: bytes, piece: int = 1 << 16) -> list[tuple[tar.Entry, bytes]]:
    """All entries with their contents, read in pieces of that size."""
    file = io.BytesIO(data)
    reader = tar.TarReader(lambda: file.read(piece))
    found = []
    while (each := reader.next()) is not None:
        found.append((each, b"".join(reader.content())))
    assert file.read() == b"", "what comes behind the end must be read: it is part of the digest"
    return found


def shown(each: tar.Entry, content: bytes) -> tuple[object, ...]:
    return (
        each.name, each.kind, each.link, each.mode, each.uid, each.gid, each.mtime_ns, each.size, each.device,
        each.xattrs, content,
    )  # fmt: skip


def as_tarfile_reads(data: bytes) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as archive:
        for member in archive:
            content = archive.extractfile(member).read() if member.isreg() else b""  # type: ignore[union-attr]
            xattrs = {
                key.removeprefix("SCHILY.xattr.").encode(): value.encode("utf-8", "surrogateescape")
                for key, value in member.pax_headers.items()
                if key.startswith("SCHILY.xattr.")
            }
            device = (member.devmajor, member.devminor) if member.isdev() and not member.isfifo() else (0, 0)
            found.append((
                member.name.encode("utf-8", "surrogateescape"), tar.SAME_KINDS.get(member.type, member.type),
                member.linkname.encode("utf-8", "surrogateescape"), member.mode, member.uid, member.gid,
                int(member.mtime * 1_000_000_000), len(content), device, xattrs, content,
            ))  # fmt: skip
    return found


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=12).filter(
    lambda text: text not in (".", "..")
)
PATHS = st.lists(NAMES, min_size=1, max_size=20).map("/".join)
MEMBERS = st.builds(
    lambda name, kind, content, **more: entry(name, kind, content if kind == tarfile.REGTYPE else b"", **more),
    name=PATHS,
    kind=st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE]),
    content=st.binary(max_size=1200),
    linkname=PATHS,
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 1 << 40),
    gid=st.integers(0, 1 << 20),
    mtime=st.integers(0, 1 << 40),
    devmajor=st.integers(0, 4095),
    devminor=st.integers(0, 1 << 17),
    pax_headers=st.dictionaries(st.sampled_from(["SCHILY.xattr.user.a", "SCHILY.xattr.user.b=c", "comment"]),
                                st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)),
)  # fmt: skip


@settings(max_examples=100)
@given(st.lists(MEMBERS, max_size=5), st.sampled_from(["pax", "gnu"]), st.integers(1, 2000))
def test_reads_the_same_as_tarfile(members, form, piece):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=FORMATS[form], encoding="utf-8", errors="surrogateescape") as out:
        for header, content in members:
            if form == "gnu":
                header.pax_headers = {}
            out.addfile(header, io.BytesIO(content))
    data = file.getvalue()
    ours = [shown(each, content) for each, content in read(data, piece)]
    theirs = [
        # A device has no place for a link and a link none for a device: tarfile passes on what it finds there.
        tuple(field if place != 2 or row[1] in (b"1", b"2") else ours[index][2] for place, field in enumerate(row))
        for index, row in enumerate(as_tarfile_reads(data))
    ]
    # tarfile's times are floats: exact to some hundred nanoseconds.
    assert [row[:6] + row[7:] for row in ours] == [row[:6] + row[7:] for row in theirs]
    assert all(abs(a[6] - b[6]) < 1 << 18 for a, b in zip(ours, theirs))  # type: ignore[operator]


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_reads_what_tar_writes(tmp_path: Path, form: str):
    deep = "/".join(["d" * 40] * 3 if form != "v7" else ["d"])
    long = deep + "/" + "n" * (90 if form in ("ustar", "v7") else 200)
    place = tmp_path / "in"
    (place / deep).mkdir(parents=True)
    (place / long).write_bytes(b"content")
    (place / "link").symlink_to("t" * (90 if form in ("ustar", "v7") else 150))
    (place / "hard").write_bytes(b"")
    os.link(place / "hard", place / "linked")
    os.utime(place / long, ns=(0, 1_234_567_890_123_456_789))
    (place / long).chmod(0o4750)
    done = subprocess.run(
        ["tar", "-C", place, f"--format={form}", "--sort=name", "--numeric-owner", "-c", "."],
        capture_output=True, check=True,
    )  # fmt: skip
    found = {each.name: (each, content) for each, content in read(done.stdout, 700)}
    names = {path.relative_to(tmp_path / "in") for path in (tmp_path / "in").rglob("*")}
    assert set(found) == {b"."} | {os.fsencode(f"./{name}") for name in names}
    assert found[b"./link"][0].kind == tar.SYMLINK
    file, content = found[os.fsencode(f"./{long}")]
    assert (content, file.mode) == (b"content", 0o4750)
    assert file.mtime_ns == 1_234_567_890_123_456_789 if form == "posix" else file.mtime_ns == 1_234_567_890 * 10**9
    assert {each.kind for each, _ in found.values()} == {tar.REGULAR, tar.DIRECTORY, tar.SYMLINK, tar.HARD_LINK}


@pytest.mark.parametrize(
    "options",
    [["--format=gnu"], *(["--format=posix", f"--sparse-version={version}"] for version in ("0.0", "0.1", "1.0"))],
    ids=lambda options: options[-1],
)
@pytest.mark.parametrize("pieces", [1, 5, 60])
def test_sparse_files(tmp_path: Path, options: list[str], pieces: int):
    with open(tmp_path / "holes", "wb") as file:
        for number in range(pieces):
            file.seek(number * 65536 + 16384)
            file.write(b"%4d" % number * 1024)
        file.truncate(pieces * 65536 + 100_000)
    done = subprocess.run(["tar", "-C", tmp_path, *options, "--sparse", "-c", "holes"], capture_output=True, check=True)
    ((found, content),) = read(done.stdout)
    assert (found.name, found.kind, found.size) == (b"holes", tar.REGULAR, pieces * 65536 + 100_000)
    assert found.sparse is not None
    whole = bytearray(found.size)
    for offset, length in found.sparse:
        whole[offset : offset + length], content = content[:length], content[length:]
    assert bytes(whole) == (tmp_path / "holes").read_bytes() and content == b""
    assert len(done.stdout) < found.size


def test_large_numbers_negative_times_and_binary_xattrs():
    headers = {"SCHILY.xattr.security.capability": "\1\0\0\2\udc80", "mtime": "-1.5", "uid": "4294967294"}
    ((found, _),) = read(make_tar([entry("f", pax_headers=headers)]).getvalue())
    assert found.xattrs == {b"security.capability": b"\1\0\0\2\x80"}
    assert (found.mtime_ns, found.uid) == (-1_500_000_000, 4294967294)


def test_global_headers_hold_until_they_are_overridden():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"uid": "7"}) as archive:
        archive.addfile(tarfile.TarInfo("a"))
        other = tarfile.TarInfo("b")
        other.pax_headers = {"uid": "8"}
        archive.addfile(other)
    assert [each.uid for each, _ in read(file.getvalue())] == [7, 8]


def sum_up(header: bytearray) -> bytes:
    """``header`` with a checksum that is right."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def header(name: bytes = b"f", kind: bytes = b"0", size: bytes = b"0", **fields: bytes) -> bytes:
    block = bytearray(512)
    places = {"mode": 100, "uid": 108, "mtime": 136, "link": 157, "magic": 257, "prefix": 345, "real": 483, "map": 386}
    for start, field in ((0, name), (124, size), (156, kind), *((places[key], each) for key, each in fields.items())):
        block[start : start + len(field)] = field
    return sum_up(block)


def pax(*records: bytes, kind: bytes = b"x") -> bytes:
    data = b"".join(records)
    return header(b"pax", kind, b"%o" % len(data)) + data + bytes(-len(data) % 512)


def record(text: bytes) -> bytes:
    """A record of an extended header, its length in front."""
    length = len(text) + 3
    while len(str(length)) + 2 + len(text) != length:
        length += 1
    return b"%d %s\n" % (length, text)


END = bytes(1024)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (header(uid=b"12x"), "is not a number"),
        (header(size=b"-1"), "is not a number"),
        (header(size=b"0x10"), "is not a number"),
        (header(size=b"1_0"), "is not a number"),
        (header(size=b"\xff" + b"\xff" * 11), "-1 bytes"),
        (header(size=b"1000"), "cut short"),
        (header(size=b"10") + b"12345678", "cut short"),
        (header()[:300], "cut short"),
        (b"x" * 512, "is not a number"),
        (header()[:148] + b"0000000\0" + header()[156:], "checksum"),
        (header(kind=b"Z"), "unknown type"),
        (header(kind=b"L", size=b"77777777"), "is larger than"),
        (header(kind=b"L", size=b"\x80" + b"\xff" * 11), "is larger than"),
        (pax(b"9 path=x\n"), "after an extended header"),
        (pax(b"5 path=x\n") + header(), "malformed"),
        (pax(b"99999999999999999999 path=x\n") + header(), "malformed"),
        (pax(b"7 path\n") + header(), "malformed"),
        (pax(record(b"path=a\0b")) + header(), "NUL"),
        (pax(record(b"uid=1e100")) + header(), "is not a number"),
        (pax(record(b"size=-1")) + header(), "-1 bytes"),
        (pax(record(b"mtime=nan")) + header(), "is not a number"),
        (b"".join(pax(record(b"a=b")) for _ in range(20)) + header(), "in a row"),
        (pax(record(b"GNU.sparse.map=0,1,1"), record(b"GNU.sparse.size=10")) + header(), "odd number"),
        (pax(record(b"GNU.sparse.map=5,1,0,1"), record(b"GNU.sparse.size=10")) + header(size=b"2") + bytes(512), "overlap"),
        (pax(record(b"GNU.sparse.map=5,9"), record(b"GNU.sparse.size=10")) + header(size=b"11") + bytes(512), "don't fit"),
        (pax(record(b"GNU.sparse.major=1"), record(b"GNU.sparse.minor=0")) + header(size=b"1000") + b"9" * 512, "no number|cut"),
        (header(kind=b"S", size=b"0", map=b"7" * 11), "no number|don't fit"),
    ],
)  # fmt: skip
def test_what_nobody_writes_is_an_error(data: bytes, said: str):
    with pytest.raises(StoreError, match=said) as caught:
        read(data + (b"" if "cut" in said else END))
    assert "\n" not in str(caught.value)


def test_old_forms():
    found = read(
        header(b"dir/") + header(b"old", b"\0") + header(b"contiguous", b"7") + header(b"label", b"V")
        + header(b"name", magic=b"ustar\x0000", prefix=b"a/long/prefix") + header(b"gnu", magic=b"ustar  \0", prefix=b"123")
    )  # fmt: skip
    assert [(each.name, each.kind) for each, _ in found] == [
        (b"dir", tar.DIRECTORY), (b"old", tar.REGULAR), (b"contiguous", tar.REGULAR),
        (b"a/long/prefix/name", tar.REGULAR), (b"gnu", tar.REGULAR),
    ]  # fmt: skip


SOUND = make_tar(
    [
        directory("d" * 120),
        entry("f", content=b"x" * 700, pax_headers={"SCHILY.xattr.user.a": "b", "mtime": "1.5"}),
        symlink("s", "t" * 130),
        hard_link("h", "f"),
    ]
).getvalue()


@settings(max_examples=400)
@given(st.data())
def test_any_damage_is_read_or_refused(data):
    raw = bytearray(SOUND)
    for _ in range(data.draw(st.integers(1, 5))):
        block = data.draw(st.integers(0, len(raw) // 512 - 1)) * 512
        raw[block + data.draw(st.integers(0, 511))] = data.draw(st.integers(0, 255))
        if data.draw(st.booleans()):  # a sound checksum lets the rest be looked at
            raw[block : block + 512] = sum_up(raw[block : block + 512])
    try:
        read(bytes(raw), data.draw(st.integers(1, 4096)))
    except StoreError as error:
        assert "\n" not in str(error)


@settings(max_examples=200)
@given(st.lists(st.sampled_from([header(kind=bytes([kind]), size=b"20") for kind in b"0125SxgLKVDX"]
                                + [bytes(512), b"20 path=0123456789ab\n" + bytes(491), b"x" * 512])
                | st.binary(min_size=512, max_size=512), max_size=8))  # fmt: skip
def test_any_blocks_are_read_or_refused(blocks):
    try:
        read(b"".join(blocks), 512)
    except StoreError as error:
        assert "\n" not in str(error)
