"""Requests to one registry about one repository: tried again, authorised, redirected.

Source: OCI distribution-spec 1.1. Every error names the host and what was asked of it.
"""

from __future__ import annotations

import email.utils
import json
import random
import time
from threading import Lock
from urllib.parse import urljoin, urlsplit

from minibox.errors import MiniboxError, RegistryError, Unauthorized
from minibox.image.registry.authorization import Authorization
from minibox.image.registry.transport import ERROR_BYTES_MAX, TRY_AGAIN, Unreachable, drop, read_up_to, without_query

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from urllib3.response import BaseHTTPResponse

    from minibox.image.registry.authorization import FindCredential
    from minibox.image.registry.endpoint import Endpoint
    from minibox.image.registry.transport import Transport

    Body = Callable[[], Iterable[bytes]]

ATTEMPTS = 5
BACKOFF_S = 0.25
RETRY_AFTER_MAX_S = 60
REDIRECTS_MAX = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})


class NotFound(RegistryError):
    """The registry has no such thing, or says so."""


class Client:
    """Asks one endpoint. Threads may share one.

    Args:
        actions: what will be done: ``pull`` or ``pull,push``; "" for a login alone.
        also_pull: other repositories there that are read, to mount blobs from.
        attempts: how often a request is tried.
        backoff_s: how long to wait before the second attempt; twice as long before each that follows.
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
        """The host that is asked, as ``HOST[:PORT]``."""
        return self.endpoint.netloc

    def url(self, path: str) -> str:
        """The URL of ``path`` below the repository: ``manifests/latest``; or of the API, for ""."""
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
        """Ask, as often as it may help; the response, whose body is to be read or closed.

        Args:
            url: of this registry, from `url` or a Location that it gave.
            body: makes the body, for each attempt anew.
            ok: the statuses that are answers; others are errors.
            what: what this is about, for error messages; the URL when it is "".
            attempts: how often to try; 0 for as often as this client does.

        Raises:
            Unreachable: it may help to try again, unless it is ``final``.
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
            failure.final = True  # who called need not try again what was tried here
        raise failure

    def get(
        self, url: str, bytes_max: int, what: str, headers: dict[str, str] | None = None
    ) -> tuple[BaseHTTPResponse, bytes]:
        """Ask for something small: the response and its body, which must not be longer than ``bytes_max``.

        Raises:
            RegistryError: as `request`; or it is longer.
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
            response.close()  # not read to its end: the connection is of no more use
            raise RegistryError(f"{what} from {self.host} is larger than the {bytes_max} bytes that are allowed")
        response.release_conn()
        return data

    def wait(self, attempt: int, at_least_s: float = 0) -> None:
        """Wait before the next attempt: longer each time, and not in step with others."""
        time.sleep(max(at_least_s, self._backoff_s * 2 ** (attempt - 1) * random.uniform(0.5, 1)))

    def _ask(self, method: str, url: str, headers: dict[str, str], body: Body | None) -> BaseHTTPResponse:
        """One attempt: with a login, if one is wanted, and where redirects lead."""
        authorization = self._authorization.header
        response, is_ours = self._follow(method, url, headers, body, authorization)
        # Twice: a token that was there may be too old, and one that another thread just got, too.
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
        """The response at the end of all redirects, and whether it is the registry's own."""
        home = origin(self.url(""))
        for _ in range(REDIRECTS_MAX + 1):
            # The login is for the registry alone, wherever it sends us.
            is_ours = origin(url) == home
            login = {"Authorization": authorization} if authorization and is_ours else {}
            response = self._send(method, url, {**headers, **login}, body() if body is not None else None)
            target = response.headers.get("Location", "")
            if response.status not in REDIRECTS or not target:
                return response, is_ours
            drop(response)
            if method not in ("GET", "HEAD"):
                raise RegistryError(f"{method} {without_query(url)}: redirected, which only reading can be")
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
                f"{without_query(url)}: redirected to {ascii(without_query(new))}, which can't be asked"
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
        """HTTPS, where the host speaks it. Only hosts that may be asked by HTTP are tried."""
        with self._scheme_lock:
            if not self._scheme:
                try:
                    # Nothing secret is in this, so any certificate will do; what follows verifies it.
                    drop(self._transport.send("GET", f"https://{self.endpoint.netloc}/v2/", {}, verify=False))
                    self._scheme = "https"
                except Unreachable:
                    self._scheme = "http"
            return self._scheme

    def _error(self, response: BaseHTTPResponse, what: str) -> MiniboxError:
        """The error for an answer that is none, with what the registry says of it."""
        status, host = response.status, self.endpoint.credentials_for
        said = _said(response)
        words = f"{what}: {self.host} answers {status} {response.reason or ''}".rstrip() + (f": {said}" if said else "")
        if status in (401, 403):
            return Unauthorized(words, f"log in as somebody who may: minibox login {host}")
        if status == 404:
            return NotFound(words)
        if status == 429:
            pause = response.headers.get("Retry-After", "")
            hint = f"it asks to come back in {pause} seconds" if pause.isdecimal() else "try again later"
            return Unreachable(words, f"{hint}; who is logged in may often ask more")
        return Unreachable(words) if status in TRY_AGAIN else RegistryError(words)


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port: who may see what is meant for the other."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"https": 443, "http": 80}.get(parts.scheme)


def _pause(response: BaseHTTPResponse) -> float:
    """How long a registry wants us to wait, in seconds (RFC 9110, 10.2.3)."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _said(response: BaseHTTPResponse) -> str:
    """What a registry says of an error: the messages in its JSON (distribution-spec, "Error Codes"), in one line."""
    try:
        data = response.read(ERROR_BYTES_MAX)
    except Exception:  # the status says enough
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
