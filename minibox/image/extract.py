"""Writing a layer's entries into a directory that they can't leave.

Names are walked one component at a time from the directory's descriptor, each opened with
O_NOFOLLOW; a symlink on the way is resolved as if the directory were the root. No path is ever
handed to the kernel with a "/" in it.

Whiteouts (OCI image-spec, layer.md) become what overlayfs reads (kernel, overlayfs.rst): a
character device 0:0 for a removed name; the xattr ``opaque`` for a directory whose lower content
is hidden. As root the xattr is set in both namespaces, trusted.overlay and user.overlay, since the
same layer may be mounted with ``userxattr`` or without.
"""

from __future__ import annotations

import errno
import os
import stat

from minibox.errors import StoreError, Unsupported
from minibox.storage.removal import remove_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    import tarfile
    from types import TracebackType
    from typing import IO, Literal

    OwnerPolicy = Literal["auto", "keep", "ignore"]
    Form = Literal["overlay", "apply"]
    Path = tuple[bytes, ...]

WHITEOUT_PREFIX = b".wh."
OPAQUE_MARKER = b".wh..wh..opq"
AUFS_PREFIX = b".wh..wh."
XATTR_HEADER_PREFIX = "SCHILY.xattr."
SYMLINKS_MAX = 40
ID_MAX = (1 << 32) - 2
CHUNK_BYTES = 1 << 20
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
CREATE_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Extractor:
    """Extracts the entries of one layer into ``directory``.

    ``form``: ``overlay`` fills an empty directory, to be stacked by overlayfs; ``apply`` changes a full
    tree, the layers below: whiteouts remove, and what is there is replaced.

    ``owner_policy``: ``keep`` gives each file the owner in its header (who has an id map must have
    that id in it), ``ignore`` leaves all to the caller, ``auto`` keeps when the caller is root.

    Directories get owner, mode, xattrs and times in `finish`: a read-only directory must not stop
    an ordinary user from filling it, and filling it would change its times.
    """

    def __init__(self, directory: str, owner_policy: OwnerPolicy = "auto", form: Form = "overlay") -> None:
        self._keep_owner = owner_policy == "keep" or (owner_policy == "auto" and os.geteuid() == 0)
        self._root_fd = os.open(directory, OPEN_DIRECTORY)
        self._parent: Path = ()  # of the last entry, kept open: tars come directory by directory
        self._parent_fd = self._root_fd
        self._directories: dict[Path, tarfile.TarInfo] = {}
        self._whiteouts: set[Path] = set()
        self._applies = form == "apply"
        self._made: set[Path] = set()  # with "apply": what this layer has, and the directories above it

    def __enter__(self) -> Extractor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._forget_parent()
        os.close(self._root_fd)

    def extract(self, member: tarfile.TarInfo, content: IO[bytes] | None) -> None:
        """Write one entry; ``content`` is a regular file's.

        Raises:
            StoreError: the entry would leave the directory or can't be meant.
            OSError: the kernel refused.
        """
        components = split_name(member.name)
        if not components:
            if member.isdir():
                self._directories[()] = member
                return
            raise StoreError(f"entry {ascii(member.name)} is not a directory but names the root")
        parent = self._walk(components[:-1], make=True)
        name = components[-1]
        try:
            if name.startswith(WHITEOUT_PREFIX):
                self._whiteout(parent, name)
            else:
                self._create(parent, name, member, content)
        except OSError as error:
            error.filename = error.filename2 = None
            raise OSError(error.errno, f"{os.strerror(error.errno or 0)}: {ascii(member.name)}") from error

    def finish(self) -> None:
        """Give directories their owner, mode, xattrs and times, the deepest first."""
        for path in sorted(self._directories, key=len, reverse=True):
            member = self._directories[path]
            if not path:
                self._apply(self._root_fd, member)
                continue
            self._open_parent(path[:-1])
            descriptor = os.open(path[-1], OPEN_DIRECTORY, dir_fd=self._parent_fd)
            try:
                self._apply(descriptor, member)
            finally:
                os.close(descriptor)
        self._forget_parent()

    def _create(self, parent: Path, name: bytes, member: tarfile.TarInfo, content: IO[bytes] | None) -> None:
        path = (*parent, name)
        if self._applies:
            self._made.update(path[:length] for length in range(1, len(path) + 1))
        if member.islnk():
            self._link(path, member)
            return
        self._open_parent(parent)
        present = _lstat(name, self._parent_fd)
        if member.isdir():
            if present is None or not stat.S_ISDIR(present.st_mode):
                self._replace(path, present)
                os.mkdir(name, 0o700, dir_fd=self._parent_fd)
                if path in self._whiteouts:  # removed and made anew: what is below stays hidden
                    self._make_opaque(path)
            self._directories[path] = member
            return
        self._replace(path, present)
        if member.isreg():
            self._write_file(name, member, content)
        elif member.issym():
            os.symlink(_encode(member.linkname), name, dir_fd=self._parent_fd)
            self._own(name, member)
            os.utime(name, ns=_times(member), dir_fd=self._parent_fd, follow_symlinks=False)
        elif member.isfifo() or member.isdev():
            self._make_node(name, member)
        else:
            raise StoreError(f"entry {ascii(member.name)} has the unknown type {member.type!r}")

    def _write_file(self, name: bytes, member: tarfile.TarInfo, content: IO[bytes] | None) -> None:
        descriptor = os.open(name, CREATE_FILE, 0o600, dir_fd=self._parent_fd)
        try:
            if member.size and content is not None:
                while chunk := content.read(CHUNK_BYTES):
                    if member.sparse is not None and not chunk.strip(b"\0"):
                        os.lseek(descriptor, len(chunk), os.SEEK_CUR)
                    else:
                        _write_all(descriptor, chunk)
                if member.sparse is not None:
                    os.ftruncate(descriptor, member.size)
            self._apply(descriptor, member)
        finally:
            os.close(descriptor)

    def _make_node(self, name: bytes, member: tarfile.TarInfo) -> None:
        kind = stat.S_IFIFO if member.isfifo() else stat.S_IFCHR if member.ischr() else stat.S_IFBLK
        device = 0 if member.isfifo() else os.makedev(member.devmajor, member.devminor)
        try:
            os.mknod(name, kind | 0o600, device, dir_fd=self._parent_fd)
        except PermissionError:
            return  # an ordinary user, or root of a user namespace: containers get their own /dev
        self._own(name, member)
        os.chmod(name, member.mode & 0o7777, dir_fd=self._parent_fd)
        os.utime(name, ns=_times(member), dir_fd=self._parent_fd, follow_symlinks=False)

    def _link(self, path: Path, member: tarfile.TarInfo) -> None:
        target = split_name(member.linkname)
        if not target:
            raise StoreError(f"hard link {ascii(member.name)} to the root directory")
        target_parent = self._walk(target[:-1], make=False)
        if (*target_parent, target[-1]) == path:
            return  # some tools write a link to itself
        self._open_parent(target_parent)
        target_fd = os.dup(self._parent_fd)
        try:
            found = _lstat(target[-1], target_fd)
            if found is None or stat.S_ISDIR(found.st_mode):
                what = "is not in the layer" if found is None else "is a directory"
                raise StoreError(f"hard link {ascii(member.name)}: its target {ascii(member.linkname)} {what}")
            self._open_parent(path[:-1])
            self._replace(path, _lstat(path[-1], self._parent_fd))
            os.link(target[-1], path[-1], src_dir_fd=target_fd, dst_dir_fd=self._parent_fd, follow_symlinks=False)
        finally:
            os.close(target_fd)

    def _whiteout(self, parent: Path, name: bytes) -> None:
        if name == OPAQUE_MARKER:
            if self._applies:
                self._remove_from_below(parent, itself=False)
            else:
                self._make_opaque(parent)
            return
        hidden = name[len(WHITEOUT_PREFIX) :]
        if name.startswith(AUFS_PREFIX):
            return  # aufs's own bookkeeping
        if hidden in (b"", b".", b".."):
            raise StoreError(f"entry {ascii(name)} is no whiteout")
        path = (*parent, hidden)
        if self._applies:
            self._remove_from_below(path)
            return
        self._open_parent(parent)
        self._whiteouts.add(path)
        present = _lstat(hidden, self._parent_fd)
        if present is None:
            os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0), dir_fd=self._parent_fd)
        elif stat.S_ISDIR(present.st_mode):
            # A whiteout is about the layers below only; this layer's own directory stays.
            self._make_opaque(path)

    def _remove_from_below(self, path: Path, *, itself: bool = True) -> None:
        """Remove what is at ``path`` as far as it is not of this layer; with ``itself`` false, what is in it."""
        waiting = [path] if itself and path not in self._made else []
        opened = [] if waiting else [path]
        while opened:
            directory = opened.pop()
            self._open_parent(directory[:-1])
            if directory and not _is_directory(directory[-1], self._parent_fd):
                continue
            self._open_directory(directory)
            for name in map(os.fsencode, os.listdir(self._parent_fd)):
                inner = (*directory, name)
                (opened if inner in self._made else waiting).append(inner)
        for victim in waiting:
            self._open_parent(victim[:-1])
            remove_at(victim[-1], self._parent_fd)

    def _make_opaque(self, path: Path) -> None:
        self._open_directory(path)
        done = False
        namespaces = ("trusted", "user") if os.geteuid() == 0 else ("user",)
        for namespace in namespaces:
            try:
                os.setxattr(self._parent_fd, f"{namespace}.overlay.opaque", b"y")
                done = True
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.ENOTSUP):
                    raise
        if not done:
            raise Unsupported(
                "mark a directory opaque: the file system keeps no user xattrs",
                "set --root to a directory on ext4, xfs or btrfs",
            )

    def _replace(self, path: Path, present: os.stat_result | None) -> None:
        """Remove what is at ``path``, whose parent is open."""
        if present is None:
            return
        remove_at(path[-1], self._parent_fd)
        if stat.S_ISDIR(present.st_mode):
            size = len(path)
            for inner in [known for known in self._directories if known[:size] == path]:
                del self._directories[inner]

    def _walk(self, components: Path, *, make: bool) -> Path:
        """The real path, below the root, of a directory; its symlinks resolved, missing ones made."""
        waiting = list(reversed(components))
        real: list[bytes] = []
        symlinks = 0
        while waiting:
            name = waiting.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                del real[-1:]  # from a symlink; the root is its own parent
                continue
            real.append(name)
            if self._is_prefix_of_parent(real):
                continue
            self._open_parent(tuple(real[:-1]))
            present = _lstat(name, self._parent_fd)
            if present is None and make:
                self._make_implied(name)
            elif present is None:
                raise StoreError(f"directory {ascii(b'/'.join(real))} is not in the layer")
            elif stat.S_ISLNK(present.st_mode):
                symlinks += 1
                if symlinks > SYMLINKS_MAX:
                    raise StoreError(f"too many symlinks on the way to {ascii(b'/'.join(components))}")
                target = os.readlink(name, dir_fd=self._parent_fd)
                real.pop()
                if target.startswith(b"/"):
                    real.clear()
                waiting.extend(reversed(target.split(b"/")))
            elif not stat.S_ISDIR(present.st_mode):
                if not (make and stat.S_ISCHR(present.st_mode) and present.st_rdev == 0):
                    raise StoreError(f"{ascii(b'/'.join(real))} is not a directory, but an entry is to lie in it")
                # A whiteout came first, then the new directory's content: replaced, opaque.
                os.unlink(name, dir_fd=self._parent_fd)
                self._make_implied(name)
                self._make_opaque(tuple(real))
        return tuple(real)

    def _make_implied(self, name: bytes) -> None:
        """Make a directory that has no entry of its own (yet), whatever the umask."""
        os.mkdir(name, 0o700, dir_fd=self._parent_fd)
        os.chmod(name, 0o755, dir_fd=self._parent_fd)

    def _is_prefix_of_parent(self, path: list[bytes]) -> bool:
        return self._parent[: len(path)] == tuple(path)

    def _open_parent(self, path: Path) -> None:
        self._open_directory(path)

    def _open_directory(self, path: Path) -> None:
        """Let `_parent_fd` be the real directory ``path``; no component of it may be a symlink."""
        if path == self._parent:
            return
        descriptor = os.dup(self._root_fd)
        for name in path:
            try:
                inner = os.open(name, OPEN_DIRECTORY, dir_fd=descriptor)
            finally:
                os.close(descriptor)
            descriptor = inner
        self._forget_parent()
        self._parent, self._parent_fd = path, descriptor

    def _forget_parent(self) -> None:
        if self._parent_fd != self._root_fd:
            os.close(self._parent_fd)
        self._parent, self._parent_fd = (), self._root_fd

    def _own(self, name: bytes, member: tarfile.TarInfo) -> None:
        if self._keep_owner:
            uid, gid = _owner(member)
            with _IdMapErrors(member):
                os.chown(name, uid, gid, dir_fd=self._parent_fd, follow_symlinks=False)

    def _apply(self, descriptor: int, member: tarfile.TarInfo) -> None:
        """Owner first, since chown clears set-user-ID bits and file capabilities."""
        if self._keep_owner:
            uid, gid = _owner(member)
            with _IdMapErrors(member):
                os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, member.mode & 0o7777)
        for header, value in member.pax_headers.items():
            if header.startswith(XATTR_HEADER_PREFIX):
                _set_xattr(descriptor, header[len(XATTR_HEADER_PREFIX) :], value)
        os.utime(descriptor, ns=_times(member))


class _IdMapErrors:
    """EINVAL of chown(2) means that the user namespace doesn't map the id: say so."""

    __slots__ = ("_member",)

    def __init__(self, member: tarfile.TarInfo) -> None:
        self._member = member

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError) and error.errno == errno.EINVAL:
            member = self._member
            raise StoreError(
                f"{ascii(member.name)} belongs to {member.uid}:{member.gid}, which the user namespace doesn't map",
                "give the user a larger range in /etc/subuid and /etc/subgid",
            ) from error


def split_name(name: str) -> Path:
    """The components of an entry's name; an absolute one is taken from the layer's root.

    Raises:
        StoreError: the name has ``..`` or a NUL in it.
    """
    components = tuple(part for part in _encode(name).split(b"/") if part not in (b"", b"."))
    if b".." in components or "\0" in name:
        raise StoreError(f"entry {ascii(name)} would leave the layer's directory")
    return components


def _encode(name: str) -> bytes:
    # Bytes, so that a locale other than UTF-8 can't change names.
    encoded = name.encode("utf-8", "surrogateescape")
    if b"\0" in encoded:
        raise StoreError(f"the name {ascii(name)} has a NUL in it")
    return encoded


def _lstat(name: bytes, dir_fd: int) -> os.stat_result | None:
    try:
        return os.lstat(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return None


def _is_directory(name: bytes, dir_fd: int) -> bool:
    present = _lstat(name, dir_fd)
    return present is not None and stat.S_ISDIR(present.st_mode)


def _owner(member: tarfile.TarInfo) -> tuple[int, int]:
    if not (0 <= member.uid <= ID_MAX and 0 <= member.gid <= ID_MAX):
        raise StoreError(f"{ascii(member.name)} belongs to {member.uid}:{member.gid}: no such ids can be")
    return member.uid, member.gid


def _times(member: tarfile.TarInfo) -> tuple[int, int]:
    try:
        time_ns = int(member.mtime * 1_000_000_000)
    except (ValueError, OverflowError):  # nan, inf
        time_ns = 0
    time_ns = min(max(time_ns, -(1 << 31) * 1_000_000_000), (1 << 33) * 1_000_000_000)
    return time_ns, time_ns


def _set_xattr(descriptor: int, name: str, value: str) -> None:
    """Set an xattr of an image where that is safe and possible; overlayfs's own are never an image's to set."""
    wanted = name == "security.capability" or name.startswith(("user.", "system.posix_acl_"))
    if not wanted or name.startswith("user.overlay."):
        return
    try:
        os.setxattr(descriptor, _encode(name), value.encode("utf-8", "surrogateescape"))
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EINVAL, errno.EACCES):
            raise


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
