"""Upload blobs to a registry in chunks, unless it has them, or can mount them from another of its repositories.

Source: OCI distribution-spec 1.1, "Push". An interrupted upload continues where the registry says it stopped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from threading import Event
from typing import BinaryIO
from urllib.parse import urlencode, urljoin, urlsplit

from urllib3.response import BaseHTTPResponse

from minibox.base.files import open_to_read
from minibox.errors import RegistryError, StoreError, Unauthorized, kernel_says
from minibox.image import progress
from minibox.image.layout.layout import Descriptor, Layout
from minibox.image.progress import OnProgress, Progress
from minibox.image.registry.client import Client, NotFound
from minibox.image.registry.download import Stopped, is_damaged
from minibox.image.registry.transport import Unreachable, drop

READ_BYTES = 1 << 20
# The size of one request: proxies in front of registries often have a limit of 100 MB.
CHUNK_BYTES = 64 << 20


class Uploads:
    """Uploads blobs of the layout to one repository. Threads may share this object.

    Args:
        mounts: for some digests, another repository of the same registry that probably has the blob.
    """

    def __init__(self, layout: Layout, client: Client, mounts: Mapping[str, str], on_progress: OnProgress) -> None:
        self._layout = layout
        self._client = client
        self._mounts = mounts
        self._on_progress = on_progress
        self._silenced: set[str] = set()
        self._stop = Event()

    def stop(self) -> None:
        """Cancel the uploads in other threads."""
        self._stop.set()

    def send(self, descriptor: Descriptor, *, silently: bool = False) -> None:
        """Upload a blob unless the registry has it.

        Args:
            silently: don't report progress, for a config: users expect to see only layers.

        Raises:
            RegistryError: the registry refuses.
            StoreError: the blob in the store is missing or damaged.
        """
        digest, size = descriptor["digest"], descriptor["size"]
        if silently:
            self._silenced.add(digest)
        self._tell(Progress(digest, progress.PREPARING, 0, size))
        if self._is_there(digest):
            self._tell(Progress(digest, progress.THERE, size, size))
            return
        location = self._begin(digest)
        if not location:
            self._tell(Progress(digest, progress.MOUNTED, size, size, self._mounts[digest]))
            return
        try:
            with open(open_to_read(self._layout.blob_path(digest)), "rb") as file:
                self._send_file(file, digest, os.fstat(file.fileno()).st_size, location)
        except OSError as error:
            raise StoreError(f"read blob {digest}: {kernel_says(error)}", "pull or build the image again") from error
        except RegistryError as error:
            if is_damaged(self._layout, digest):
                raise StoreError(
                    f"blob {digest} is damaged: its content has another digest", "pull the image again"
                ) from error
            raise
        self._tell(Progress(digest, progress.PUSHED, size, size))

    def _tell(self, event: Progress) -> None:
        if event.digest not in self._silenced:
            self._on_progress(event)

    def _is_there(self, digest: str) -> bool:
        try:
            drop(self._client.request("HEAD", self._client.url(f"blobs/{digest}"), what=f"blob {digest}"))
        except NotFound:
            return False
        return True

    def _begin(self, digest: str) -> str:
        """Begin an upload and return its location; "" if the blob was mounted instead."""
        mount = self._mounts.get(digest)
        query = "?" + urlencode({"mount": digest, "from": mount}) if mount else ""
        url = self._client.url("blobs/uploads/") + query
        # Some registries require a Content-Length even for an empty body.
        what = f"upload blob {digest}"
        try:
            response = self._client.request("POST", url, {"Content-Length": "0"}, ok=(201, 202), what=what)
        except (Unauthorized, NotFound):
            if not mount:
                raise
            self._mounts = {}  # we may not read the other repository, so upload instead
            return self._begin(digest)
        drop(response)
        return "" if response.status == 201 and mount else self._location(response, url)

    def _send_file(self, file: BinaryIO, digest: str, size: int, location: str) -> None:
        """Upload ``file`` in chunks. The last or only one completes the upload."""
        what = f"upload blob {digest}"
        sent, attempt = 0, 1
        while True:
            length = min(CHUNK_BYTES, size - sent)
            is_last = sent + length == size
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(length)}
            if length < size:
                headers["Content-Range"] = f"{sent}-{sent + length - 1}"
            method, url, ok = (
                ("PUT", _with_digest(location, digest), (201, 204)) if is_last else ("PATCH", location, (202,))
            )
            try:
                body = partial(self._body, file, sent, length, digest, size)
                response = self._client.request(method, url, headers, body, ok=ok, what=what, attempts=1)
            except Unreachable as error:
                if error.final or attempt >= self._client.attempts:
                    raise
                self._tell(Progress(digest, progress.RETRYING, sent, size, str(error)))
                self._client.wait(attempt)
                attempt += 1
                if is_last and self._is_there(digest):
                    return  # only the answer was lost
                sent, location = self._resume(digest, location)
                continue
            drop(response)
            if is_last:
                return
            sent, location, attempt = sent + length, self._location(response, location), 1

    def _resume(self, digest: str, location: str) -> tuple[int, str]:
        """Return how far an interrupted upload got, and its location. Begin again if the registry doesn't know it."""
        try:
            response = self._client.request("GET", location, ok=(204, 200), what=f"upload blob {digest}")
        except RegistryError:
            self._mounts = {}
            return 0, self._begin(digest)
        drop(response)
        end = response.headers.get("Range", "").rpartition("-")[2]
        # "0-0" may mean nothing or one byte: begin again instead of guessing.
        if not end.isdecimal() or int(end) == 0:
            return 0, self._begin(digest)
        return int(end) + 1, self._location(response, location)

    def _body(self, file: BinaryIO, start: int, length: int, digest: str, size: int) -> Iterator[bytes]:
        file.seek(start)
        end = start + length
        while start < end:
            if self._stop.is_set():
                raise Stopped
            chunk = file.read(min(READ_BYTES, end - start))
            if not chunk:
                raise StoreError(f"blob {digest} became shorter while it was sent")
            start += len(chunk)
            self._tell(Progress(digest, progress.PUSHING, start, size))
            yield chunk

    def _location(self, response: BaseHTTPResponse, url: str) -> str:
        """Return where an upload continues. A registry behind a proxy may not know that we use HTTPS."""
        location = urljoin(url, response.headers.get("Location", ""))
        parts, ours = urlsplit(location), urlsplit(url)
        if not response.headers.get("Location") or parts.scheme not in ("http", "https"):
            raise RegistryError(f"{self._client.host} began an upload but doesn't say where to send it")
        if parts.hostname == ours.hostname and parts.scheme == "http" and ours.scheme == "https":
            return parts._replace(scheme=ours.scheme, netloc=ours.netloc).geturl()
        return location


def _with_digest(location: str, digest: str) -> str:
    return location + ("&" if urlsplit(location).query else "?") + urlencode({"digest": digest})
