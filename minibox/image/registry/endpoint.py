"""Find the hosts to ask for a repository, and whether HTTP is allowed.

HTTPS is required, except for hosts on loopback and those that config.toml calls insecure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from minibox.config import RegistryConfig
from minibox.errors import ConfigError
from minibox.image.reference import DEFAULT_DOMAIN, Reference
from minibox.record import record

DOCKER_HUB = "registry-1.docker.io"


@record
class Endpoint:
    """A host to ask, and a repository there.

    Attributes:
        netloc: ``HOST[:PORT]``.
        repository: the path there, with a mirror's prefix.
        scheme: ``https`` or ``http``; "" to find out which one the host speaks.
        insecure: accept a certificate that can't be verified.
        ca_file: certificates to trust besides the system's; "" for none.
        credentials_for: the host under which credentials are stored.
    """

    netloc: str
    repository: str
    scheme: str
    insecure: bool
    ca_file: str
    credentials_for: str


def endpoints(
    reference: Reference, registries: Mapping[str, RegistryConfig], *, mirrors: bool = True
) -> list[Endpoint]:
    """Return the endpoints to ask for ``reference``: first its mirrors, if wanted, then the registry itself.

    Raises:
        ConfigError: a mirror or location in config.toml is not a host.
    """
    config = registries.get(reference.domain, RegistryConfig())
    found = [_elsewhere(mirror, reference, registries) for mirror in (config.mirrors if mirrors else ())]
    if config.location:
        return [*found, _elsewhere(config.location, reference, registries, config)]
    netloc = DOCKER_HUB if reference.domain == DEFAULT_DOMAIN else reference.domain
    return [*found, _endpoint(netloc, reference.path, "", reference.domain, config)]


def is_loopback(host: str) -> bool:
    """Tell from a host's name or address whether it is this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def host_of(netloc: str) -> str:
    """Return ``netloc`` without its port, and an IPv6 address without brackets."""
    return urlsplit(f"//{netloc}").hostname or ""


def _elsewhere(
    text: str, reference: Reference, registries: Mapping[str, RegistryConfig], config: RegistryConfig | None = None
) -> Endpoint:
    """Return the endpoint of a mirror or location: ``[SCHEME://]HOST[:PORT][/PREFIX]``."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    netloc, _, prefix = rest.rstrip("/").partition("/")
    try:
        host = host_of(netloc) if urlsplit(f"//{netloc}").port != 0 else ""
    except ValueError:
        host = ""
    if not host or scheme not in ("", "https", "http") or "@" in netloc:
        raise ConfigError(
            f'registries."{reference.domain}": {ascii(text)} is not a host', "write [http[s]://]HOST[:PORT][/PREFIX]"
        )
    repository = f"{prefix}/{reference.path}" if prefix else reference.path
    return _endpoint(netloc, repository, scheme, netloc, config or registries.get(netloc, RegistryConfig()))


def _endpoint(netloc: str, repository: str, scheme: str, credentials_for: str, config: RegistryConfig) -> Endpoint:
    unknown = config.insecure or is_loopback(host_of(netloc))
    return Endpoint(
        netloc=netloc,
        repository=repository,
        scheme=scheme or ("" if unknown else "https"),
        insecure=config.insecure,
        ca_file=config.ca_file,
        credentials_for=credentials_for,
    )
