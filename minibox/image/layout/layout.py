"""The OCI image layout on disk: blobs by digest, names in index.json.

Source: OCI image-spec 1.1, image-layout.md. Other tools read and write it, too (``skopeo copy ...
oci:ROOT/images:NAME``, ``umoci``), so it contains only what the specification defines. Locks and unfinished files are
beside it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import time
from contextlib import contextmanager

from minibox.base.codec import damage_of, plain
from minibox.base.files import FileTooLarge, closing, read_file, replace_file, sync_directory
from minibox.base.shape import check
from minibox.errors import IndexDamaged, StoreError, kernel_says, suppress
from minibox.image.reference import is_digest
from minibox.linux.removal import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, BinaryIO

Descriptor = dict[str, "Any"]
REF_NAME = "org.opencontainers.image.ref.name"
# The digest of the registry's tag: of an index, if the manifest in the store was chosen from one.
PULLED_DIGEST = "org.minibox.pulled.digest"
MEDIA_TYPE_INDEX = "application/vnd.oci.image.index.v1+json"
LAYOUT_FILE = b'{"imageLayoutVersion":"1.0.0"}'
JSON_BLOB_BYTES_MAX = 8 << 20
INDEX_BYTES_MAX = 64 << 20
CHUNK_BYTES = 1 << 20
STALE_AFTER_S = 60
# An unfinished download (`minibox.image.registry.download`) is kept this long, so that it can be resumed.
PARTIAL = ".partial"
PARTIAL_STALE_AFTER_S = 7 * 86400


class Layout:
    """The OCI image layout at ``root``/images. It is made on disk at the first write."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.path = f"{root}/images"

    def blob_path(self, digest: str) -> str:
        """Return the path of a blob, whether it exists or not.

        Raises:
            StoreError: ``digest`` is not a sha256 digest, so it may not be a safe file name.
        """
        if not isinstance(digest, str) or not is_digest(digest):
            raise StoreError(f"{ascii(digest)} is not a sha256 digest")
        return f"{self.path}/blobs/sha256/{digest[7:]}"

    def read_json(self, digest: str) -> dict[str, Any]:
        """Return the JSON object in a blob, after verifying its digest.

        Raises:
            StoreError: the blob is missing, doesn't match its digest, or isn't a JSON object.
        """
        return _json_object(self.read_blob(digest), f"blob {digest}")

    def read_blob(self, digest: str) -> bytes:
        """Return the content of a manifest or config, after verifying its digest.

        Raises:
            StoreError: the blob is missing, doesn't match its digest, or is too large.
        """
        path = self.blob_path(digest)
        try:
            data = read_file(path, JSON_BLOB_BYTES_MAX)
        except FileTooLarge:
            raise StoreError(
                f"blob {digest} is larger than {JSON_BLOB_BYTES_MAX} bytes: too large for a manifest or config"
            ) from None
        except OSError as error:
            raise StoreError(f"read blob {digest}: {kernel_says(error)}", _REPULL) from error
        if "sha256:" + hashlib.sha256(data).hexdigest() != digest:
            raise StoreError(f"blob {digest} is damaged: its content has another digest", _REPULL)
        return data

    def write_json(self, value: dict[str, Any], media_type: str) -> Descriptor:
        """Store ``value`` as a blob in canonical form, and return its descriptor.

        Raises:
            StoreError: it is larger than `read_blob` accepts, or the disk is full.
        """
        data = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
        if len(data) > JSON_BLOB_BYTES_MAX:
            raise StoreError(
                f"write a manifest or config of {len(data)} bytes: at most {JSON_BLOB_BYTES_MAX} can be read"
            )
        return {"mediaType": media_type, "digest": self.write_blob(data), "size": len(data)}

    def write_blob(self, data: bytes) -> str:
        """Store ``data`` as a blob, and return its digest."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        with self.new_blob() as file:
            file.write(data)
            self.keep_blob(file, digest)
        return digest

    @contextmanager
    def new_blob(self) -> Iterator[BinaryIO]:
        """Give a ``with`` block a file for a new blob, and remove it at the end unless it was passed to `keep_blob`."""
        self.create()
        name = f"{self.root}/tmp/{os.getpid()}-{time.monotonic_ns()}"
        with _disk_errors(f"write {name}", name), open(name, "xb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)  # tells `_sweep` that the owner is alive
                yield file
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(name)

    @contextmanager
    def staging(self) -> Iterator[str]:
        """Give a ``with`` block a directory for files that may become blobs, and remove it and the rest at the end."""
        self.create()
        path = f"{self.root}/tmp/{os.getpid()}-{time.monotonic_ns()}"
        with _disk_errors(f"make {path}"):
            os.mkdir(path, 0o700)
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)  # tells `_sweep` that the owner is alive
            yield path
        finally:
            os.close(fd)
            remove_tree(path)

    def keep_blob(self, file: BinaryIO, digest: str, *, sync: bool = True) -> None:
        """Move the finished file of `new_blob` to its place under ``digest``.

        Not by `replace_file`: it would hold a whole layer in memory.
        Without ``sync`` the caller must sync it before a name refers to it.
        """
        path = self.blob_path(digest)
        with _disk_errors(f"write blob {digest}"):
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            if sync:
                os.fdatasync(file.fileno())
            os.rename(file.name, path)

    def descriptors(self) -> list[Descriptor]:
        """Return the descriptors in index.json; none if there is no store yet.

        Raises:
            StoreError: index.json can't be read or is damaged.
        """
        path = f"{self.path}/index.json"
        try:
            data = read_file(path, INDEX_BYTES_MAX)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            if wrong := damage_of(error, path):
                raise IndexDamaged(path, wrong.why) from None
            raise disk_error(f"read {path}", error) from error
        try:
            manifests = plain(data).get("manifests") or []
            check(manifests, [dict])
        except (ValueError, RecursionError) as error:
            raise IndexDamaged(path, str(error)) from None
        return list(manifests)

    def rewrite(self, descriptors: list[Descriptor]) -> None:
        """Replace index.json and oci-layout, whatever is there; for repairs."""
        with _disk_errors(f"make the image store at {self.path}"):
            os.makedirs(f"{self.path}/blobs/sha256", mode=0o755, exist_ok=True)
            os.makedirs(f"{self.root}/tmp", mode=0o700, exist_ok=True)
        with self._locked():
            for name in ("oci-layout", "index.json"):
                path = f"{self.path}/{name}"
                if os.path.isdir(path) and not os.path.islink(path):
                    os.rename(path, f"{self.root}/tmp/{os.getpid()}-{time.monotonic_ns()}")
            self._replace(f"{self.path}/oci-layout", LAYOUT_FILE)
            self._write_index(descriptors)

    def names(self) -> tuple[str, ...]:
        """Return all names in index.json, sorted."""
        return tuple(sorted({name for name in map(ref_name, self.descriptors()) if name}))

    def set_name(self, name: str, descriptor: Descriptor) -> None:
        """Give ``descriptor`` the name. An image that had the name stays without one, as Docker's <none>."""
        named = {**descriptor, "annotations": {**descriptor.get("annotations", {}), REF_NAME: name}}
        self.change(lambda items: [*(nameless(item) if ref_name(item) == name else item for item in items), named])

    def change(self, edit: Callable[[list[Descriptor]], list[Descriptor]]) -> None:
        """Replace the descriptors in index.json by the result of ``edit``, while no one else can write.

        A descriptor without a name is kept once, and only if no name refers to the same digest.
        """
        with self._locked():
            before = self.descriptors()
            items = edit(list(before))
            known = {item.get("digest") for item in items if ref_name(item)}
            after = []
            for item in items:
                if ref_name(item) or item.get("digest") not in known:
                    known.add(item.get("digest"))
                    after.append(item)
            if after != before:
                self._write_index(after)

    @contextmanager
    def adding(self) -> Iterator[None]:
        """Hold off `collecting`. Use it from adding the first blob or layer until a name refers to it.

        Many processes may add at once, and you may nest these blocks.
        """
        with self._gc_locked(fcntl.LOCK_SH):
            yield

    @contextmanager
    def collecting(self, *, wait: bool = True) -> Iterator[bool]:
        """Lock the blobs and layers, to remove those that no name refers to.

        With ``wait``, wait until nobody adds any. Otherwise yield False at once if somebody does: don't remove anything
        then.
        """
        with self._gc_locked(fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB) as held:
            yield held

    @contextmanager
    def _gc_locked(self, operation: int) -> Iterator[bool]:
        self.create()
        path = f"{self.root}/gc.lock"
        with _disk_errors(f"lock {path}"):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with closing(descriptor):
            yield _flock(descriptor, operation)

    def create(self) -> None:
        """Make the layout's missing directories and files."""
        if os.access(f"{self.path}/index.json", os.F_OK) and os.access(f"{self.root}/tmp", os.F_OK):
            return
        with _disk_errors(f"make the image store at {self.path}"):
            os.makedirs(self.path, mode=0o700, exist_ok=True)  # images may be private, with secrets in their ENV
            os.makedirs(f"{self.path}/blobs/sha256", exist_ok=True)
            os.makedirs(f"{self.root}/tmp", mode=0o700, exist_ok=True)
            with self._locked():
                if not os.access(f"{self.path}/oci-layout", os.F_OK):
                    self._replace(f"{self.path}/oci-layout", LAYOUT_FILE)
                if not os.access(f"{self.path}/index.json", os.F_OK):
                    self._write_index([])

    def _write_index(self, manifests: list[Descriptor]) -> None:
        index = {"schemaVersion": 2, "mediaType": MEDIA_TYPE_INDEX, "manifests": manifests}
        data = json.dumps(index, separators=(",", ":")).encode()
        if len(data) > INDEX_BYTES_MAX:
            raise StoreError(
                f"write an index of {len(data)} bytes: at most {INDEX_BYTES_MAX} can be read", "remove images"
            )
        blobs = f"{self.path}/blobs/sha256"
        with _disk_errors(f"write {self.path}/index.json"):
            if os.path.isdir(blobs):
                sync_directory(blobs)  # before a name refers to a blob in it
        self._replace(f"{self.path}/index.json", data)

    def _replace(self, path: str, data: bytes) -> None:
        with _disk_errors(f"write {path}"):
            replace_file(path, data, mode=0o644, durable=True, by=f"{self.root}/tmp")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock for changing index.json, and remove what killed writers left."""
        with _disk_errors(f"lock {self.path}"), locked(f"{self.root}/images.lock"):
            self._sweep()
            yield

    def _sweep(self) -> None:
        try:
            names = os.listdir(f"{self.root}/tmp")
        except FileNotFoundError:
            return
        for name in names:
            path = f"{self.root}/tmp/{name}"
            try:
                kept_s = PARTIAL_STALE_AFTER_S if name.endswith(PARTIAL) else STALE_AFTER_S
                if time.time() - os.stat(path).st_mtime < kept_s:
                    continue
                with closing(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)) as fd:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove_tree(path)
            except OSError:
                continue


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold an exclusive flock on the file ``path``, which is made if needed and never removed."""
    with closing(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def _flock(descriptor: int, operation: int) -> bool:
    """Take the lock; False if LOCK_NB is set and somebody else has it."""
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        return False
    return True


def ref_name(descriptor: Descriptor) -> str:
    """Return the name of ``descriptor``, or ""."""
    return annotation(descriptor, REF_NAME)


def annotation(descriptor: Descriptor, name: str) -> str:
    """Return an annotation of ``descriptor``, or ""."""
    annotations = descriptor.get("annotations")
    value = annotations.get(name) if isinstance(annotations, dict) else None
    return value if isinstance(value, str) else ""


def nameless(descriptor: Descriptor) -> Descriptor:
    """Return ``descriptor`` without its name."""
    annotations = descriptor.get("annotations")
    if not isinstance(annotations, dict) or REF_NAME not in annotations:
        return descriptor
    others = {key: value for key, value in annotations.items() if key != REF_NAME}
    bare = {key: value for key, value in descriptor.items() if key != "annotations"}
    return {**bare, "annotations": others} if others else bare


def disk_error(what: str, error: OSError) -> StoreError:
    """Return the error for a failed write: what was tried, and a hint if the disk is full or read-only."""
    hints = {
        errno.ENOSPC: "the disk is full: free some space, or set --root to a directory on another disk",
        errno.EDQUOT: "the disk quota is used up: free some space, or set --root to a directory on another disk",
        errno.EROFS: "set --root to a directory on a writable file system",
        errno.EACCES: "set --root to a directory of your own",
        errno.EPERM: "set --root to a directory of your own",
    }
    return StoreError(f"{what}: {kernel_says(error)}", hints.get(error.errno or 0))


@contextmanager
def _disk_errors(what: str, path: str = "") -> Iterator[None]:
    """Turn an OSError into a StoreError. With ``path``, an error that names another file comes from reading that."""
    try:
        yield
    except OSError as error:
        if path and error.filename not in (None, path):
            raise StoreError(f"read {error.filename}: {kernel_says(error)}") from error
        raise disk_error(what, error) from error


_REPULL = "remove the image, and pull or load it again"


def _json_object(data: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{what} is damaged: it is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise StoreError(f"{what} is damaged: it is not a JSON object")
    return value
