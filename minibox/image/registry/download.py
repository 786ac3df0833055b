"""Download blobs from a registry: stream each to ``root/tmp/<hex>.partial``, verify it, then move it to its place.

A process locks its partial file (flock). Another that wants the same blob waits, and uses the result, or resumes the
download if the first process was killed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from threading import Event, Lock
from typing import BinaryIO

from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from minibox.base.files import closing, open_to_read
from minibox.errors import RegistryError, StoreError, suppress
from minibox.image import progress
from minibox.image.layout.layout import PARTIAL, Descriptor, Layout, disk_error
from minibox.image.progress import OnProgress, Progress
from minibox.image.registry.client import Client
from minibox.image.registry.transport import Unreachable, drop, unreachable

CHUNK_BYTES = 1 << 20
LOCK_POLL_S = 0.05
PROGRESS_BYTES = 4 << 20  # an attempt that got so far doesn't count: we start counting attempts again


class Stopped(Exception):
    """The download was cancelled."""


class Downloads:
    """Downloads blobs of one repository into the layout. Threads may share this object.

    Args:
        clients: the registries to ask, in this order.
    """

    def __init__(self, layout: Layout, clients: Sequence[Client], on_progress: OnProgress) -> None:
        self.layout = layout
        self.host = clients[0].host
        self._clients = clients
        self._tell = on_progress
        self._stop = Event()
        self._lock = Lock()
        self._open: set[BaseHTTPResponse] = set()

    def stop(self) -> None:
        """Cancel the downloads in other threads."""
        self._stop.set()
        with self._lock:
            for response in self._open:
                with suppress(RuntimeError, ValueError, OSError):  # it has just ended
                    response.shutdown()

    def fetch(self, descriptor: Descriptor, *, anew: bool = False) -> bool:
        """Download and verify a blob unless it exists; return whether we did. Call `sync` to write it to the disk.

        Args:
            anew: download it even if it exists, because it is damaged.

        Raises:
            RegistryError: no registry sends what the descriptor says.
            StoreError: it can't be written.
            Stopped: `stop` was called.
        """
        digest = descriptor["digest"]
        if not anew and is_there(self.layout, descriptor):
            self._tell(Progress(digest, progress.EXISTS, descriptor["size"], descriptor["size"]))
            return False
        self._tell(Progress(digest, progress.PULLING, 0, descriptor["size"]))
        self.layout.create()
        try:
            with self._partial(digest) as file:
                if anew or not is_there(self.layout, descriptor):
                    self._fetch_to(file, descriptor)
                    self.layout.keep_blob(file, digest, sync=False)
        except OSError as error:
            raise disk_error(f"write blob {digest}", error) from error
        self._tell(Progress(digest, progress.DOWNLOADED, descriptor["size"], descriptor["size"]))
        return True

    def sync(self, descriptor: Descriptor) -> None:
        """Wait until a blob is on the disk.

        Raises:
            StoreError: the disk failed.
        """
        digest = descriptor["digest"]
        try:
            with closing(open_to_read(self.layout.blob_path(digest))) as fd:
                os.fdatasync(fd)
        except OSError as error:
            raise disk_error(f"write blob {digest}", error) from error

    @contextmanager
    def _partial(self, digest: str) -> Iterator[BinaryIO]:
        """Lock the partial file of a blob for a ``with`` block. Remove it at the end unless it can be resumed later."""
        path = f"{self.layout.root}/tmp/{digest[7:]}{PARTIAL}"
        while True:
            with open(path, "r+b", buffering=0, opener=_create) as file:
                self._wait_lock(file, digest)
                if not _is_at(file, path):
                    continue  # its last holder moved it to its place, or removed it
                try:
                    yield file
                finally:
                    if _is_at(file, path) and (os.access(self.layout.blob_path(digest), os.F_OK) or not _size(file)):
                        os.unlink(path)
                return

    def _wait_lock(self, file: BinaryIO, digest: str) -> None:
        waiting = False
        while True:
            self._check_stop()
            try:
                return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not waiting:
                    self._tell(Progress(digest, progress.WAITING))
                waiting = True
                self._stop.wait(LOCK_POLL_S)

    def _fetch_to(self, file: BinaryIO, descriptor: Descriptor) -> None:
        self._check_space(descriptor["size"] - _size(file), descriptor["digest"])
        *mirrors, last = self._clients
        for client in mirrors:
            try:
                return self._fetch_from(client, file, descriptor)
            except RegistryError as error:
                self._tell(Progress(descriptor["digest"], progress.RETRYING, detail=str(error)))
        self._fetch_from(last, file, descriptor)

    def _check_space(self, size: int, digest: str) -> None:
        """Check for free space first, before we wait for hours and then fill the disk for everybody."""
        found = os.statvfs(self.layout.root)
        if size > (free := found.f_bavail * found.f_frsize):
            raise StoreError(
                f"download blob {digest}: it needs {size} bytes, but only {free} are free in {self.layout.root}",
                "free some space, or set --root to a directory on another disk",
            )

    def _fetch_from(self, client: Client, file: BinaryIO, descriptor: Descriptor) -> None:
        """Download the whole blob from one registry, in several attempts if needed."""
        digest, size = descriptor["digest"], descriptor["size"]
        partial = _Partial(file, size)
        resumed = partial.done > 0
        attempt, done_before = 1, partial.done
        while True:
            try:
                if partial.done < size:
                    self._stream(client, partial, digest)
            except Unreachable as error:
                if partial.done - done_before >= PROGRESS_BYTES:
                    attempt, done_before = 1, partial.done
                if error.final or attempt >= client.attempts:
                    raise
                self._tell(Progress(digest, progress.RETRYING, partial.done, size, str(error)))
                client.wait(attempt)
                attempt += 1
                continue
            if (found := partial.digest()) == digest:
                return
            partial.restart()
            if not resumed:
                raise RegistryError(f"blob {digest} from {client.host} has another digest, {found}")
            resumed = False  # the part that a killed download left may be damaged: try again from the beginning

    def _stream(self, client: Client, partial: _Partial, digest: str) -> None:
        """Make one request for the missing part, or for the whole if the registry can't send a part."""
        what = f"blob {digest}"
        headers = {"Range": f"bytes={partial.done}-"} if partial.done else {}
        response = client.request("GET", client.url(f"blobs/{digest}"), headers, ok=(200, 206, 416), what=what)
        with self._opened(response):
            if response.status == 416 or (response.status == 206 and _range_start(response) != partial.done):
                partial.restart()
                raise Unreachable(f"{what}: {client.host} sent another part than we asked for")
            if response.status == 200 and partial.done:
                partial.restart()
            announced = response.headers.get("Content-Length", "")
            if announced.isdecimal() and int(announced) != partial.missing:
                partial.restart()
                raise RegistryError(
                    f"{what}: {client.host} sends {announced} bytes, but the manifest says {partial.missing}"
                )
            while chunk := self._read(response, client, what):
                if len(chunk) > partial.missing:
                    partial.restart()
                    raise RegistryError(
                        f"{what}: {client.host} sends more than the {partial.size} bytes it should have"
                    )
                partial.write(chunk)
                self._tell(Progress(digest, progress.DOWNLOADING, partial.done, partial.size))
        if partial.missing:
            raise Unreachable(f"{what}: {client.host} sent {partial.done} of {partial.size} bytes")

    def _read(self, response: BaseHTTPResponse, client: Client, what: str) -> bytes:
        self._check_stop()
        try:
            return response.read(CHUNK_BYTES)
        except (HTTPError, HTTPException, OSError) as error:
            self._check_stop()
            raise unreachable(f"read {what} from {client.host}", error, client.host) from error

    @contextmanager
    def _opened(self, response: BaseHTTPResponse) -> Iterator[None]:
        """Let `stop` know of a response during a ``with`` block, and free its connection at the end."""
        with self._lock:
            self._open.add(response)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(response)
            drop(response)

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise Stopped


class _Partial:
    """The part of a blob that we have, and its digest so far."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self.size = size
        self.done = 0
        self._hasher = hashlib.sha256()
        if _size(file) > size:
            self.restart()
        file.seek(0)
        while chunk := file.read(CHUNK_BYTES):
            self._hasher.update(chunk)
            self.done += len(chunk)

    @property
    def missing(self) -> int:
        """The number of bytes that are missing."""
        return self.size - self.done

    def write(self, chunk: bytes) -> None:
        self._hasher.update(chunk)
        rest = memoryview(chunk)
        while rest:
            rest = rest[self._file.write(rest) :]
        self.done += len(chunk)

    def restart(self) -> None:
        """Throw away what we have."""
        self._file.seek(0)
        self._file.truncate()
        self._hasher = hashlib.sha256()
        self.done = 0

    def digest(self) -> str:
        """Return ``sha256:<hex>`` of what we have."""
        return "sha256:" + self._hasher.hexdigest()


def is_there(layout: Layout, descriptor: Descriptor) -> bool:
    """Tell whether ``layout`` has a blob of the right size."""
    try:
        return bool(os.stat(layout.blob_path(descriptor["digest"])).st_size == descriptor["size"])
    except OSError:
        return False


def is_damaged(layout: Layout, digest: str) -> bool:
    """Tell whether a blob exists and its digest differs from its name."""
    try:
        with open(open_to_read(layout.blob_path(digest)), "rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest() != digest
    except FileNotFoundError:
        return False


def _create(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _is_at(file: BinaryIO, path: str) -> bool:
    """Tell whether the open ``file`` still has that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _range_start(response: BaseHTTPResponse) -> int:
    """Return where a part begins, or -1: ``Content-Range: bytes START-END/SIZE`` (RFC 9110, 14.4)."""
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    start = rest.partition("-")[0].strip()
    return int(start) if unit == "bytes" and start.isdecimal() else -1
