"""Log in to a registry that asks for it: Basic (RFC 7617) and Docker's bearer tokens.

Source: distribution-spec's "token authentication" (https://distribution.github.io/distribution/spec/auth/token/), and
its OAuth 2 form for identity tokens. We send no secret before the registry asks for it, and only to the registry and
the token server that it names.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from threading import Lock
from urllib.parse import urlencode, urlsplit

from urllib3.response import BaseHTTPResponse

from minibox.errors import ConfigError, RegistryError, Unauthorized
from minibox.image.registry.challenge import Challenge, parse_challenges
from minibox.image.registry.credentials import IDENTITY_TOKEN_USER, Credential
from minibox.image.registry.endpoint import is_loopback
from minibox.image.registry.transport import TRY_AGAIN, Unreachable, drop, read_up_to, without_query

Send = Callable[[str, str, dict[str, str], bytes | None], BaseHTTPResponse]
FindCredential = Callable[[], Credential | None]

CLIENT_ID = "minibox"
TOKEN_BYTES_MAX = 1 << 20


class Authorization:
    """The Authorization header for one registry and certain actions.

    Args:
        host: the registry, as users write it.
        scopes: the requested permissions: ``repository:library/debian:pull``.
        find_credential: called when the registry asks for a login.
        send: sends a request to the token server: method, URL, headers, body.
        insecure: allow HTTP for the token server.

    Attributes:
        header: the header to send; "" until the registry has asked for it.
        problem: why we couldn't get a credential, if that failed.
    """

    def __init__(
        self, host: str, scopes: tuple[str, ...], find_credential: FindCredential, send: Send, *, insecure: bool
    ) -> None:
        self._host = host
        self._scopes = scopes
        self._find_credential = find_credential
        self._send = send
        self._insecure = insecure
        self._lock = Lock()
        self.header = ""
        self.problem: ConfigError | None = None

    def answer(self, headers: Iterable[str], refused: str) -> str:
        """Return the header that answers a 401.

        Args:
            headers: the WWW-Authenticate headers.
            refused: the header of the refused request. Another thread may have got a new one since.

        Raises:
            Unauthorized: we have nothing that the registry accepts.
            RegistryError: the token server fails.
        """
        with self._lock:
            if self.header and self.header != refused:
                return self.header
            offers = {challenge.scheme: challenge for challenge in parse_challenges(headers)}
            credential = self._credential()
            if "bearer" in offers:
                self.header = self._bearer(offers["bearer"], credential)
            elif "basic" in offers and credential is not None and not refused:
                self.header = _basic(credential)
            else:
                raise self.refusal("" if offers else "it doesn't say which kind")
            return self.header

    def refusal(self, said: str = "") -> Unauthorized:
        """Return the error for a 401 that we can't answer; ``said`` is the registry's message."""
        because = f": {said}" if said else ""
        login = f"minibox login {self._host}"
        if self.problem is not None:
            return Unauthorized(f"{self._host} wants a login{because}, and {self.problem}", self.problem.hint or login)
        if (credential := self._credential()) is None:
            return Unauthorized(f"{self._host} wants a login{because}", login)
        source = f" in {credential.source}" if credential.source else ""
        return Unauthorized(f"{self._host} refuses the login of {credential.username!r}{source}{because}", login)

    def _credential(self) -> Credential | None:
        """Return the credential for this registry. If a helper program fails, go on without it."""
        try:
            return self._find_credential()
        except ConfigError as error:
            self.problem = error
            return None

    def _bearer(self, challenge: Challenge, credential: Credential | None) -> str:
        realm = challenge.parameters.get("realm", "")
        parts = urlsplit(realm)
        if parts.scheme not in ("https", "http") or not parts.netloc or "@" in parts.netloc:
            raise RegistryError(f"{self._host} names {ascii(realm)} as its token server, which is not a URL")
        if parts.scheme != "https" and not (self._insecure or is_loopback(parts.hostname or "")):
            raise RegistryError(
                f"{self._host} names {without_query(realm)} as its token server, which is not encrypted"
            )
        scopes = self._scopes or tuple(challenge.parameters.get("scope", "").split())
        query = [("scope", scope) for scope in scopes]
        if service := challenge.parameters.get("service"):
            query.insert(0, ("service", service))
        if credential is not None and credential.username == IDENTITY_TOKEN_USER:
            form = [("service", challenge.parameters.get("service", "")), ("scope", " ".join(scopes))]
            form += [("grant_type", "refresh_token"), ("client_id", CLIENT_ID), ("refresh_token", credential.secret)]
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            return f"Bearer {self._token('POST', realm, headers, urlencode(form).encode())}"
        headers = {}
        if credential is not None:
            headers["Authorization"] = _basic(credential)
            query.insert(0, ("account", credential.username))
        url = realm + ("&" if parts.query else "?") + urlencode(query)
        return f"Bearer {self._token('GET', url, headers, None)}"

    def _token(self, method: str, url: str, headers: dict[str, str], body: bytes | None) -> str:
        """Get a token from the token server."""
        what = f"get a token for {self._host} from {without_query(url)}"
        response = self._send(method, url, headers, body)
        try:
            data = read_up_to(response, TOKEN_BYTES_MAX, "a token", urlsplit(url).netloc)
        finally:
            drop(response)
        if response.status in (400, 401, 403):
            named = headers.get("Authorization") or body is not None
            why = "the user name or password is wrong" if named else f"{self.problem or 'anonymous users get none'}"
            raise Unauthorized(f"{what}: {response.status}: {why}", f"minibox login {self._host}")
        if response.status != 200:
            kind = Unreachable if response.status in TRY_AGAIN else RegistryError
            raise kind(f"{what}: {response.status} {response.reason or ''}".rstrip())
        try:
            answer = json.loads(data)
            token = answer.get("token") or answer.get("access_token")
        except (ValueError, AttributeError, RecursionError):
            token = None
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
            raise RegistryError(f"{what}: the answer has no token")
        return token


def _basic(credential: Credential) -> str:
    return "Basic " + base64.b64encode(f"{credential.username}:{credential.secret}".encode()).decode()
