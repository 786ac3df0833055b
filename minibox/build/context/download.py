"""Files from HTTP servers, for ADD and for contexts: to disk as they come, with a digest."""

from __future__ import annotations

import hashlib
import os
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin, urlsplit

from minibox.base.files import write_all
from minibox.errors import BuildError, RegistryError, kernel_says
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from urllib3.response import BaseHTTPResponse

    from minibox.image.registry.transport import Transport

REDIRECTS = frozenset({301, 302, 303, 307, 308})
REDIRECTS_MAX = 10
CHUNK_BYTES = 1 << 18
SCHEMES = ("http", "https")


@record
class Downloaded:
    """A downloaded file.

    Attributes:
        digest: ``sha256:`` and 64 hexadecimal digits.
        changed_s: when it was changed the last time, in seconds since 1970; None if the server doesn't say.
    """

    digest: str
    size_bytes: int
    changed_s: int | None


def download(url: str, path: str, environ: Mapping[str, str], checksum: str = "") -> Downloaded:
    """Write what a URL has to a new file.

    Args:
        environ: may name proxies, such as HTTPS_PROXY.
        checksum: ``sha256:...`` (or sha384, sha512) that it must have; "" for any.

    Raises:
        BuildError: the server can't be reached or refuses, the checksum is malformed or another, or the disk is full.
    """
    from minibox.image.registry.transport import Transport

    algorithm, expected = parse_checksum(checksum) if checksum else ("sha256", "")
    transport = Transport(environ)
    try:
        response = _get(transport, url)
        try:
            found = _save(response, url, path, algorithm)
        finally:
            response.close()
    except RegistryError as error:
        raise BuildError(str(error), error.hint) from error
    finally:
        transport.close()
    digests, size = found
    if expected and digests[algorithm] != expected:
        os.unlink(path)
        raise BuildError(
            f"{url} has the checksum {algorithm}:{digests[algorithm]}, not {checksum}",
            "the file was changed, or the checksum is of another one",
        )
    return Downloaded(f"sha256:{digests['sha256']}", size, _changed_s(response))


def parse_checksum(text: str) -> tuple[str, str]:
    """Return the algorithm and the digits of a checksum.

    Raises:
        BuildError: it is malformed.
    """
    algorithm, _, digits = text.partition(":")
    lengths = {"sha256": 64, "sha384": 96, "sha512": 128}
    if len(digits) != lengths.get(algorithm) or not set(digits) <= set("0123456789abcdef"):
        raise BuildError(f"{text!r} is not a checksum", "write sha256: and 64 hexadecimal digits in lower case")
    return algorithm, digits


def _get(transport: Transport, url: str) -> BaseHTTPResponse:
    """Send the request, and follow redirects."""
    here = url
    for _ in range(REDIRECTS_MAX):
        if urlsplit(here).scheme not in SCHEMES:
            raise BuildError(f"{url} leads to {here}, which is not a URL of http or https")
        response = transport.send("GET", here, {"Accept-Encoding": "identity"})
        if response.status == 200:
            return response
        response.close()
        location = response.headers.get("Location")
        if response.status not in REDIRECTS or not location:
            raise BuildError(f"GET {url}: the server answers {response.status} {response.reason or ''}".rstrip())
        here = urljoin(here, location)
    raise BuildError(f"GET {url}: more than {REDIRECTS_MAX} redirects")


def _save(response: BaseHTTPResponse, url: str, path: str, algorithm: str) -> tuple[dict[str, str], int]:
    from urllib3.exceptions import HTTPError

    hashers = {name: hashlib.new(name) for name in {"sha256", algorithm}}
    size = 0
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        while chunk := response.read(CHUNK_BYTES, decode_content=False):
            write_all(fd, chunk)
            size += len(chunk)
            for each in hashers.values():
                each.update(chunk)
    except HTTPError as error:
        raise BuildError(f"GET {url}: the answer broke off after {size} bytes: {error}", "try again") from error
    except OSError as error:
        raise BuildError(f"GET {url}: {kernel_says(error)}") from error
    finally:
        os.close(fd)
    length = response.headers.get("Content-Length")
    if length and length.isdigit() and int(length) != size:
        raise BuildError(f"GET {url}: the answer broke off after {size} of {length} bytes", "try again")
    return {name: each.hexdigest() for name, each in hashers.items()}, size


def _changed_s(response: BaseHTTPResponse) -> int | None:
    try:
        return max(0, int(parsedate_to_datetime(response.headers["Last-Modified"]).timestamp()))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
