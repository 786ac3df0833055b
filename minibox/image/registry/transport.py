"""Connections to registries: TLS with the system's certificates and a registry's own, proxies, errors in words.

A registry's own certificates are looked for where Docker and Podman look (containers-certs.d(5)):
``certs.d/HOST[:PORT]`` in /etc/docker, /etc/containers and ``$XDG_CONFIG_HOME/containers``: ``*.crt`` are
authorities, ``*.cert`` with ``*.key`` say who we are.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from http.client import HTTPException
from threading import Lock
from urllib.parse import urlsplit

import urllib3
from urllib3 import exceptions

from minibox.errors import ConfigError, RegistryError, kernel_says
from minibox.image.registry.endpoint import host_of, is_loopback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from urllib3.response import BaseHTTPResponse

CONNECT_TIMEOUT_S = 20
READ_TIMEOUT_S = 60
CONNECTIONS_MAX = 8
USER_AGENT = "minibox"
BLOCK_BYTES = 1 << 18
ERROR_BYTES_MAX = 1 << 16
TRY_AGAIN = frozenset({408, 429, 500, 502, 503, 504})  # statuses after which another attempt may succeed


class Unreachable(RegistryError):
    """No answer, or not the whole of it: another attempt may succeed.

    Attributes:
        final: another attempt can't: a certificate that is refused stays so.
    """

    def __init__(self, message: str, hint: str | None = None, *, final: bool = False) -> None:
        super().__init__(message, hint)
        self.final = final


class Transport:
    """Pools of connections, one a host. Threads may share one."""

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
        """One request; the response, whose body is to be read or closed. Follows nothing, tries once.

        Args:
            ca_file: certificates to trust besides the system's.
            verify: whether the server's certificate is checked.

        Raises:
            Unreachable: there was no answer.
            ConfigError: a certificate file can't be read, or ``url`` is none.
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
        """Close all connections that nobody reads from."""
        for manager in self._pools.values():
            for key in manager.pools.keys():
                manager.pools[key].close()  # else when it is collected as garbage
            manager.clear()

    def _pool(self, scheme: str, netloc: str, ca_file: str, verify: bool) -> urllib3.PoolManager:
        with self._lock:
            key = (scheme + "://" + netloc, ca_file, verify)
            if key not in self._pools:
                self._pools[key] = self._make_pool(scheme, netloc, ca_file, verify)
            return self._pools[key]

    def _make_pool(self, scheme: str, netloc: str, ca_file: str, verify: bool) -> urllib3.PoolManager:
        if not verify:  # which the user has decided, or is told of: see `Client._find_scheme`
            urllib3.disable_warnings(exceptions.InsecureRequestWarning)
        context = tls_context(certificate_files(netloc, self._environ), ca_file, verify) if scheme == "https" else None
        proxy = self._proxy(scheme, netloc)
        if not proxy:
            return urllib3.PoolManager(maxsize=CONNECTIONS_MAX, ssl_context=context, blocksize=BLOCK_BYTES)
        try:
            parts = urlsplit(proxy)
            if not parts.hostname or parts.scheme not in ("http", "https"):
                raise ValueError("no URL of a proxy")
            login = f"{parts.username}:{parts.password or ''}" if parts.username else None
            headers = urllib3.make_headers(proxy_basic_auth=login) if login else {}
            return urllib3.ProxyManager(
                f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}",
                proxy_headers=headers, maxsize=CONNECTIONS_MAX, ssl_context=context, blocksize=BLOCK_BYTES,
            )  # fmt: skip
        except (ValueError, exceptions.HTTPError) as error:
            raise ConfigError(
                f"{scheme.upper()}_PROXY: {ascii(proxy)} is no proxy", "write http://HOST:PORT"
            ) from error

    def _proxy(self, scheme: str, netloc: str) -> str:
        """The proxy that the environment names for ``netloc``, or "". Loopback needs none."""
        if is_loopback(host_of(netloc)):
            return ""
        # Not urllib's idea of the process's environment: a caller may give another.
        known = {name.lower(): value for name, value in self._environ.items() if name.lower().endswith("_proxy")}
        if not known or _bypassed(netloc, known.get("no_proxy", "")):
            return ""
        proxy = known.get(f"{scheme}_proxy") or known.get("all_proxy") or ""
        return proxy if "://" in proxy or not proxy else f"http://{proxy}"


def tls_context(files: tuple[list[str], list[tuple[str, str]]], ca_file: str, verify: bool) -> ssl.SSLContext:
    """A context that trusts the system's authorities and those in ``files``, and shows our certificates.

    Raises:
        ConfigError: a file can't be read or is no certificate.
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
        raise ConfigError(f"{path} is no certificate in PEM: {error.reason or error}") from error
    except OSError as error:
        raise ConfigError(f"read {path}: {kernel_says(error)}") from error
    return context


def certificate_files(netloc: str, environ: Mapping[str, str]) -> tuple[list[str], list[tuple[str, str]]]:
    """A registry's own files in certs.d: its authorities, and pairs of our certificate and key."""
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
    """The error for a request or an answer that broke off, in words."""
    cause = _cause(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Unreachable(
            f"{what}: the certificate is not trusted: {cause.verify_message}",
            f"put the certificate of its authority into /etc/docker/certs.d/{netloc}/ca.crt; see docs/registries.md",
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
        return Unreachable(f"{what}: not a URL that can be asked", final=True)
    return Unreachable(f"{what}: the answer broke off: {_brief(cause)}")


def read_up_to(response: BaseHTTPResponse, bytes_max: int, what: str, netloc: str) -> bytes:
    """The body of a response, or if it is longer than ``bytes_max`` some more bytes than these.

    Raises:
        Unreachable: it breaks off.
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
    """Be done with a response; its connection is kept when little of the body is left."""
    try:
        if response.length_remaining is not None and response.length_remaining <= ERROR_BYTES_MAX:
            response.drain_conn()
            response.release_conn()
            return
    except Exception:  # whatever it was, the connection is given up
        pass
    response.close()


def without_query(url: str) -> str:
    """``url`` for an error message: its query may hold a signature."""
    return url.partition("?")[0]


def _cause(error: BaseException) -> BaseException:
    """What is at the bottom of urllib3's nested exceptions."""
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
    return f'if it speaks HTTP only: insecure = true under [registries."{netloc}"] in config.toml'


def _bypassed(netloc: str, no_proxy: str) -> bool:
    """Whether NO_PROXY has the host: ``*``, a name or the end of one, an address, or a network as 10.0.0.0/8."""
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
