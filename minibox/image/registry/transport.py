"""Connections to registries: TLS with the system's certificates and a registry's own, proxies, errors in words.

We look for a registry's own certificates where Docker and Podman do (containers-certs.d(5)): ``certs.d/HOST[:PORT]`` in
/etc/docker, /etc/containers and ``$XDG_CONFIG_HOME/containers``. ``*.crt`` are certificates of authorities;
``*.cert`` and ``*.key`` are our own certificates and keys.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Iterable, Mapping
from http.client import HTTPException
from threading import Lock
from urllib.parse import urlsplit

import urllib3
from urllib3 import exceptions
from urllib3.response import BaseHTTPResponse

from minibox.errors import ConfigError, RegistryError, kernel_says, suppress
from minibox.image.registry.endpoint import host_of, is_loopback

CONNECT_TIMEOUT_S = 20
READ_TIMEOUT_S = 60
CONNECTIONS_MAX = 8
USER_AGENT = "minibox"
BLOCK_BYTES = 1 << 18
ERROR_BYTES_MAX = 1 << 16
TRY_AGAIN = frozenset({408, 429, 500, 502, 503, 504})  # statuses after which another attempt may succeed


class Unreachable(RegistryError):
    """There was no answer, or an incomplete one. Another attempt may succeed.

    Attributes:
        final: another attempt can't succeed, for example because of a refused certificate.
    """

    def __init__(self, message: str, hint: str | None = None, *, final: bool = False) -> None:
        super().__init__(message, hint)
        self.final = final


class Transport:
    """Connection pools, one for each host. Threads may share this object."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._pools: dict[tuple[str, str, bool], urllib3.PoolManager] = {}
        self._lock = Lock()

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None = None,
        *,
        ca_file: str = "",
        verify: bool = True,
    ) -> BaseHTTPResponse:
        """Send one request, without retries or redirects. You must read or close the response's body.

        Args:
            ca_file: certificates to trust besides the system's.
            verify: check the server's certificate.

        Raises:
            Unreachable: there was no answer.
            ConfigError: a certificate file can't be read, or a proxy is invalid.
        """
        parts = urlsplit(url)
        try:
            return self._pool(parts.scheme, parts.netloc, ca_file, verify).request(
                method, url, headers={"User-Agent": USER_AGENT, **headers}, body=body,
                preload_content=False, decode_content=False, redirect=False, retries=False,
                timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S),
            )  # fmt: skip
        except (exceptions.HTTPError, OSError, ValueError) as error:
            raise unreachable(f"{method} {without_query(url)}", error, parts.netloc) from error

    def close(self) -> None:
        """Close all idle connections."""
        for manager in self._pools.values():
            for key in manager.pools.keys():
                manager.pools[key].close()  # otherwise they close only when garbage-collected
            manager.clear()

    def _pool(self, scheme: str, netloc: str, ca_file: str, verify: bool) -> urllib3.PoolManager:
        with self._lock:
            key = (scheme + "://" + netloc, ca_file, verify)
            if key not in self._pools:
                self._pools[key] = self._make_pool(scheme, netloc, ca_file, verify)
            return self._pools[key]

    def _make_pool(self, scheme: str, netloc: str, ca_file: str, verify: bool) -> urllib3.PoolManager:
        if not verify:  # the user chose this; or see `Client._find_scheme`
            urllib3.disable_warnings(exceptions.InsecureRequestWarning)
        context = tls_context(certificate_files(netloc, self._environ), ca_file, verify) if scheme == "https" else None
        proxy = self._proxy(scheme, netloc)
        if not proxy:
            return urllib3.PoolManager(maxsize=CONNECTIONS_MAX, ssl_context=context, blocksize=BLOCK_BYTES)
        try:
            parts = urlsplit(proxy)
            if not parts.hostname or parts.scheme not in ("http", "https"):
                raise ValueError("not the URL of a proxy")
            login = f"{parts.username}:{parts.password or ''}" if parts.username else None
            headers = urllib3.make_headers(proxy_basic_auth=login) if login else {}
            return urllib3.ProxyManager(
                f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}",
                proxy_headers=headers, maxsize=CONNECTIONS_MAX, ssl_context=context, blocksize=BLOCK_BYTES,
            )  # fmt: skip
        except (ValueError, exceptions.HTTPError) as error:
            raise ConfigError(
                f"{scheme.upper()}_PROXY: {ascii(proxy)} is not a proxy", "write http://HOST:PORT"
            ) from error

    def _proxy(self, scheme: str, netloc: str) -> str:
        """Return the environment's proxy for ``netloc``, or "". Loopback needs none."""
        if is_loopback(host_of(netloc)):
            return ""
        # We don't use urllib, which reads the process's environment: the caller may pass another.
        known = {name.lower(): value for name, value in self._environ.items() if name.lower().endswith("_proxy")}
        if not known or _bypassed(netloc, known.get("no_proxy", "")):
            return ""
        proxy = known.get(f"{scheme}_proxy") or known.get("all_proxy") or ""
        return proxy if "://" in proxy or not proxy else f"http://{proxy}"


def tls_context(files: tuple[list[str], list[tuple[str, str]]], ca_file: str, verify: bool) -> ssl.SSLContext:
    """Make a context that trusts the system's authorities and those in ``files``, and has our certificates.

    Raises:
        ConfigError: a file can't be read or isn't a certificate.
    """
    context = ssl.create_default_context() if verify else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    authorities, own = files
    path = ""
    try:
        for path in [*authorities, *([ca_file] if ca_file else [])] if verify else []:
            context.load_verify_locations(cafile=path)
        for path, key_path in own:
            context.load_cert_chain(path, key_path)
    except ssl.SSLError as error:
        raise ConfigError(f"{path} is not a certificate in PEM format: {error.reason or error}") from error
    except OSError as error:
        raise ConfigError(f"read {path}: {kernel_says(error)}") from error
    return context


def certificate_files(netloc: str, environ: Mapping[str, str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Return a registry's files in certs.d: its authorities, and pairs of our certificate and key."""
    home = environ.get("XDG_CONFIG_HOME") or (environ["HOME"] + "/.config" if environ.get("HOME") else "")
    directories = ["/etc/docker", "/etc/containers", *([f"{home}/containers"] if home else [])]
    authorities, own = [], []
    for directory in directories:
        path = f"{directory}/certs.d/{netloc}"
        try:
            names = sorted(os.listdir(path))
        except OSError:
            continue
        authorities += [f"{path}/{name}" for name in names if name.endswith(".crt")]
        own += [(f"{path}/{name}", f"{path}/{name[:-5]}.key") for name in names if name.endswith(".cert")]
    return authorities, own


def unreachable(what: str, error: Exception, netloc: str) -> Unreachable:
    """Turn an error of a request or an incomplete answer into words."""
    cause = _cause(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Unreachable(
            f"{what}: the certificate is not trusted: {cause.verify_message}",
            f"put its authority's certificate into /etc/docker/certs.d/{netloc}/ca.crt; see docs/registries.md",
            final=True,
        )
    if isinstance(cause, ssl.SSLError):
        reason = (cause.reason or str(cause)).replace("_", " ").lower()
        return Unreachable(f"{what}: TLS failed: {reason}", _http_hint(netloc), final=True)
    if isinstance(error, exceptions.NameResolutionError):
        return Unreachable(f"{what}: the name can't be resolved", final=True)
    if isinstance(cause, OSError) and cause.errno:
        return Unreachable(f"{what}: {kernel_says(cause)}")
    if isinstance(cause, TimeoutError) or isinstance(error, exceptions.TimeoutError):
        return Unreachable(f"{what}: no answer in time")
    if isinstance(error, exceptions.ProxyError):
        return Unreachable(f"{what}: the proxy refuses: {_brief(cause)}", final=True)
    if isinstance(error, (exceptions.LocationValueError, UnicodeError)):
        return Unreachable(f"{what}: not a valid URL", final=True)
    return Unreachable(f"{what}: the answer broke off: {_brief(cause)}")


def read_up_to(response: BaseHTTPResponse, bytes_max: int, what: str, netloc: str) -> bytes:
    """Read the body of a response; if it is longer than ``bytes_max``, return more than ``bytes_max`` bytes of it.

    Raises:
        Unreachable: it ends too early.
    """
    data = b""
    try:
        while len(data) <= bytes_max and (more := response.read(bytes_max + 1 - len(data))):
            data += more
    except (exceptions.HTTPError, HTTPException, OSError) as error:
        response.close()
        raise unreachable(f"read {what} from {netloc}", error, netloc) from error
    return data


def drop(response: BaseHTTPResponse) -> None:
    """Finish a response. Keep its connection if little of the body is left."""
    with suppress(Exception):  # whatever it was, close the connection
        if response.length_remaining is not None and response.length_remaining <= ERROR_BYTES_MAX:
            response.drain_conn()
            response.release_conn()
            return
    response.close()


def without_query(url: str) -> str:
    """Return ``url`` without its query for an error message: the query may contain a signature."""
    return url.partition("?")[0]


def _cause(error: BaseException) -> BaseException:
    """Return the innermost of urllib3's nested exceptions."""
    for _ in range(8):
        inner = next((item for item in (error.__cause__, *error.args) if isinstance(item, BaseException)), None)
        if inner is None:
            return error
        error = inner
    return error


def _brief(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "..."


def _http_hint(netloc: str) -> str:
    return f'if it speaks only HTTP, set insecure = true under [registries."{netloc}"] in config.toml'


def _bypassed(netloc: str, no_proxy: str) -> bool:
    """Tell whether NO_PROXY has the host: ``*``, a name or its end, an address, or a network such as 10.0.0.0/8."""
    host = host_of(netloc)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    for word in no_proxy.replace(",", " ").split():
        name = word.lower().removeprefix("*").lstrip(".")
        if not name or netloc.lower() == name or host == name or host.endswith(f".{name}"):
            return True
        try:
            if address is not None and address in ipaddress.ip_network(word, strict=False):
                return True
        except ValueError:
            continue
    return False
