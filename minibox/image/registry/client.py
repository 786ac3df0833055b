"""Requests to one registry about one repository, with retries, authorization and redirects.

Source: OCI distribution-spec 1.1. Every error names the host and the request.
"""

from __future__ import annotations

import email.utils
import json
import random
import time
from collections.abc import Callable, Iterable
from threading import Lock
from urllib.parse import urljoin, urlsplit

from urllib3.response import BaseHTTPResponse

from minibox.errors import MiniboxError, RegistryError, Unauthorized
from minibox.image.registry.authorization import Authorization, FindCredential
from minibox.image.registry.endpoint import Endpoint
from minibox.image.registry.transport import (
    ERROR_BYTES_MAX,
    TRY_AGAIN,
    Transport,
    Unreachable,
    drop,
    read_up_to,
    without_query,
)

Body = Callable[[], Iterable[bytes]]

ATTEMPTS = 5
BACKOFF_S = 0.25
RETRY_AFTER_MAX_S = 60
REDIRECTS_MAX = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})


class NotFound(RegistryError):
    """The registry doesn't have it, or says that it doesn't."""


class Client:
    """Sends requests to one endpoint. Threads may share a client.

    Args:
        actions: the permissions to ask for: ``pull`` or ``pull,push``; "" only to log in.
        also_pull: other repositories to read from, to mount their blobs.
        attempts: how often to try a request.
        backoff_s: how long to wait before the second attempt; the wait doubles each time.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        transport: Transport,
        find_credential: FindCredential,
        actions: str = "pull",
        *,
        also_pull: Iterable[str] = (),
        attempts: int = ATTEMPTS,
        backoff_s: float = BACKOFF_S,
    ) -> None:
        self.endpoint = endpoint
        self.attempts = attempts
        self._transport = transport
        self._backoff_s = backoff_s
        self._scheme = endpoint.scheme
        self._scheme_lock = Lock()
        scopes = [f"repository:{endpoint.repository}:{actions}"] if actions else []
        scopes += [f"repository:{repository}:pull" for repository in also_pull]
        self._authorization = Authorization(
            endpoint.credentials_for, tuple(scopes), find_credential, self._send, insecure=endpoint.insecure
        )

    @property
    def host(self) -> str:
        """The endpoint's host, as ``HOST[:PORT]``."""
        return self.endpoint.netloc

    def url(self, path: str) -> str:
        """Return the URL of ``path`` below the repository, such as ``manifests/latest``; for "", that of the API."""
        base = f"{self._find_scheme()}://{self.endpoint.netloc}/v2/"
        return f"{base}{self.endpoint.repository}/{path}" if path else base

    def request(
        self,
        method: str,
        url: str,
        headers: dict[str, str] | None = None,
        body: Body | None = None,
        *,
        ok: Iterable[int] = (200,),
        what: str = "",
        attempts: int = 0,
    ) -> BaseHTTPResponse:
        """Send a request, retry it if that may help, and return the response. You must read or close its body.

        Args:
            url: a URL of this registry, from `url` or from its Location header.
            body: makes a new body for each attempt.
            ok: the statuses that count as success; others raise an error.
            what: names the request in error messages; "" for its URL.
            attempts: how often to try; 0 for this client's default.

        Raises:
            Unreachable: trying again may help, unless it is ``final``.
            Unauthorized, NotFound, RegistryError: the registry refuses or fails.
        """
        what = what or f"{method} {without_query(url)}"
        last = attempts or self.attempts
        for attempt in range(1, last + 1):
            pause = 0.0
            try:
                response = self._ask(method, url, headers or {}, body)
            except Unauthorized as error:
                raise Unauthorized(f"{what}: {error}", error.hint) from error
            except Unreachable as error:
                failure: MiniboxError = error
            else:
                if response.status in ok:
                    return response
                pause = _pause(response)
                failure = self._error(response, what)
            if not isinstance(failure, Unreachable) or failure.final or pause > RETRY_AFTER_MAX_S or attempt == last:
                break
            self.wait(attempt, pause)
        if isinstance(failure, Unreachable) and not attempts:
            failure.final = True  # the caller needn't try again, since we did
        raise failure

    def get(
        self, url: str, bytes_max: int, what: str, headers: dict[str, str] | None = None
    ) -> tuple[BaseHTTPResponse, bytes]:
        """Get something small: return the response and its body of at most ``bytes_max``.

        Raises:
            RegistryError: like `request`; or the body is longer.
        """
        attempt = 1
        while True:
            response = self.request("GET", url, headers, what=what)
            try:
                return response, self._read(response, bytes_max, what)
            except Unreachable as error:
                if error.final or attempt == self.attempts:
                    raise
            self.wait(attempt)
            attempt += 1

    def _read(self, response: BaseHTTPResponse, bytes_max: int, what: str) -> bytes:
        length = response.headers.get("Content-Length", "")
        is_huge = length.isdecimal() and int(length) > bytes_max
        data = b"" if is_huge else read_up_to(response, bytes_max, what, self.host)
        if is_huge or len(data) > bytes_max:
            response.close()  # not read to its end, so the connection can't be reused
            raise RegistryError(f"{what} from {self.host} is larger than the {bytes_max} bytes that are allowed")
        response.release_conn()
        return data

    def wait(self, attempt: int, at_least_s: float = 0) -> None:
        """Wait before the next attempt: longer each time, and randomly, so that clients don't retry all at once."""
        time.sleep(max(at_least_s, self._backoff_s * 2 ** (attempt - 1) * random.uniform(0.5, 1)))

    def _ask(self, method: str, url: str, headers: dict[str, str], body: Body | None) -> BaseHTTPResponse:
        """Make one attempt: log in if needed, and follow redirects."""
        authorization = self._authorization.header
        response, is_ours = self._follow(method, url, headers, body, authorization)
        # Twice: our token may have expired, and so may the one that another thread has got.
        for _ in range(2 if authorization else 1):
            if response.status != 401 or not is_ours:
                break
            drop(response)
            challenges = response.headers.getlist("WWW-Authenticate")
            authorization = self._authorization.answer(challenges, authorization)
            response, is_ours = self._follow(method, url, headers, body, authorization)
        if response.status == 401 and is_ours:
            raise self._authorization.refusal(_said(response))
        return response

    def _follow(
        self, method: str, url: str, headers: dict[str, str], body: Body | None, authorization: str
    ) -> tuple[BaseHTTPResponse, bool]:
        """Follow redirects; return the last response, and whether it is from the registry itself."""
        home = origin(self.url(""))
        for _ in range(REDIRECTS_MAX + 1):
            # Send the login only to the registry, not to where it redirects us.
            is_ours = origin(url) == home
            login = {"Authorization": authorization} if authorization and is_ours else {}
            response = self._send(method, url, {**headers, **login}, body() if body is not None else None)
            target = response.headers.get("Location", "")
            if response.status not in REDIRECTS or not target:
                return response, is_ours
            drop(response)
            if method not in ("GET", "HEAD"):
                raise RegistryError(f"{method} {without_query(url)}: redirected, which is allowed only for reading")
            url = self._redirected(url, target)
        raise RegistryError(f"{method} {without_query(url)}: redirected more than {REDIRECTS_MAX} times")

    def _redirected(self, url: str, target: str) -> str:
        try:
            new = urljoin(url, target)
            parts = urlsplit(new)
            sound = parts.scheme in ("https", "http") and bool(parts.hostname) and "@" not in parts.netloc
        except ValueError:
            new, sound = target, False
        if not sound:
            raise RegistryError(
                f"{without_query(url)}: redirected to {ascii(without_query(new))}, which is not a valid URL"
            )
        if parts.scheme == "http" and url.startswith("https:") and not self.endpoint.insecure:
            raise RegistryError(f"{without_query(url)}: redirected to {without_query(new)}, which is not encrypted")
        return new

    def _send(
        self, method: str, url: str, headers: dict[str, str], body: Iterable[bytes] | bytes | None
    ) -> BaseHTTPResponse:
        ours = urlsplit(url).netloc == self.endpoint.netloc
        return self._transport.send(
            method, url, headers, body, ca_file=self.endpoint.ca_file, verify=not (ours and self.endpoint.insecure)
        )

    def _find_scheme(self) -> str:
        """Return https if the host speaks it. We only try this with hosts for which HTTP is allowed."""
        with self._scheme_lock:
            if not self._scheme:
                try:
                    # This request has no secrets, so accept any certificate; later ones verify it.
                    drop(self._transport.send("GET", f"https://{self.endpoint.netloc}/v2/", {}, verify=False))
                    self._scheme = "https"
                except Unreachable:
                    self._scheme = "http"
            return self._scheme

    def _error(self, response: BaseHTTPResponse, what: str) -> MiniboxError:
        """Return the error for a failed request, with the registry's message."""
        status, host = response.status, self.endpoint.credentials_for
        said = _said(response)
        words = f"{what}: {self.host} answers {status} {response.reason or ''}".rstrip() + (f": {said}" if said else "")
        if status in (401, 403):
            return Unauthorized(words, f"log in as a user with permission: minibox login {host}")
        if status == 404:
            return NotFound(words)
        if status == 429:
            pause = response.headers.get("Retry-After", "")
            hint = f"try again in {pause} seconds" if pause.isdecimal() else "try again later"
            return Unreachable(words, f"{hint}; registries often allow more requests after a login")
        return Unreachable(words) if status in TRY_AGAIN else RegistryError(words)


def origin(url: str) -> tuple[str, str, int | None]:
    """Return scheme, host and port. Secrets for one origin must not go to another."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"https": 443, "http": 80}.get(parts.scheme)


def _pause(response: BaseHTTPResponse) -> float:
    """Return how long a registry wants us to wait, in seconds (RFC 9110, 10.2.3)."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _said(response: BaseHTTPResponse) -> str:
    """Return a registry's error messages from its JSON (distribution-spec, "Error Codes") in one line."""
    try:
        data = response.read(ERROR_BYTES_MAX)
    except Exception:  # the status is enough
        return ""
    finally:
        response.close()
    try:
        errors = json.loads(data)["errors"]
        texts = [str(item.get("message") or item.get("code") or "") for item in errors]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return ""
    text = ", ".join(dict.fromkeys(filter(None, texts)))
    return text if len(text) <= 300 else text[:300] + "..."
