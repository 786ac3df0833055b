"""Get a repository's tags, manifests and configs, and check them.

Source: OCI distribution-spec 1.1, "Pull" and "Content Discovery".
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urljoin, urlsplit

from minibox.errors import RegistryError
from minibox.image.layout.layout import Descriptor
from minibox.image.reference import is_digest, is_tag
from minibox.image.registry.client import Client, origin
from minibox.image.registry.transport import drop
from minibox.image.registry.validation import (
    ACCEPT,
    CONFIG_BYTES_MAX,
    MANIFEST_BYTES_MAX,
    Document,
    digest_of,
    read_config,
    read_document,
)

TAGS_BYTES_MAX = 8 << 20
TAGS_PAGES_MAX = 1000


def head_manifest(client: Client, tag: str) -> str:
    """Return the current digest of ``tag``, or "" if the registry doesn't say.

    Raises:
        RegistryError: it can't be reached, or has no such tag.
    """
    url = client.url(f"manifests/{tag}")
    response = client.request("HEAD", url, {"Accept": ACCEPT}, ok=(200, 405), what=_manifest(tag, client))
    drop(response)
    digest = response.headers.get("Docker-Content-Digest", "")
    return digest if response.status == 200 and is_digest(digest) else ""


def get_manifest(client: Client, name: str, descriptor: Descriptor | None = None) -> Document:
    """Get the manifest or index ``name``, a tag or a digest, and check it against its ``descriptor``, if there is one.

    Raises:
        RegistryError: the registry doesn't send it, or it doesn't match its digest, size or media type.
    """
    what = _manifest(name, client)
    response, data = client.get(client.url(f"manifests/{name}"), MANIFEST_BYTES_MAX, what, {"Accept": ACCEPT})
    what = f"{what} from {client.host}"
    expected = name if is_digest(name) else response.headers.get("Docker-Content-Digest", "")
    # Check before parsing: with another digest it isn't what we asked for, whatever it contains.
    if is_digest(expected) and (found := digest_of(data)) != expected:
        raise RegistryError(f"{what} should have the digest {expected}, but has {found}")
    if descriptor is not None and descriptor["size"] != len(data):
        raise RegistryError(f"{what} has {len(data)} bytes, but its index says {descriptor['size']}")
    announced = [response.headers.get("Content-Type", ""), descriptor["mediaType"] if descriptor else ""]
    documents = [read_document(data, media_type, what) for media_type in announced if media_type]
    return documents[0] if documents else read_document(data, "", what)


def get_config(client: Client, manifest: Document) -> tuple[bytes, dict[str, Any]]:
    """Get the image config of ``manifest``, as bytes and as JSON.

    Raises:
        RegistryError: the registry doesn't send it, or it doesn't match the manifest.
    """
    descriptor = manifest.value["config"]
    what = f"config {descriptor['digest']}"
    data = get_blob(client, descriptor, what, CONFIG_BYTES_MAX)
    return data, read_config(data, len(manifest.value["layers"]), f"{what} from {client.host}")


def get_blob(client: Client, descriptor: Descriptor, what: str, bytes_max: int) -> bytes:
    """Get a blob that fits in memory, and check its digest.

    Args:
        what: names it in errors.

    Raises:
        RegistryError: the registry doesn't send it, or it has another digest, or more than ``bytes_max``.
    """
    url = client.url(f"blobs/{descriptor['digest']}")
    _, data = client.get(url, min(descriptor["size"], bytes_max), what)
    if (found := digest_of(data)) != descriptor["digest"]:
        raise RegistryError(f"{what} from {client.host} has another digest, {found}")
    return data


def list_tags(client: Client) -> list[str]:
    """Return all tags of the repository, in the registry's order.

    Raises:
        RegistryError: the registry doesn't list them, or doesn't send a list.
    """
    tags: dict[str, None] = {}
    what = f"tags of {client.endpoint.repository}"
    url = client.url("tags/list")
    for _ in range(TAGS_PAGES_MAX):
        response, data = client.get(url, TAGS_BYTES_MAX, what)
        try:
            page = json.loads(data)["tags"] or []
        except (ValueError, TypeError, KeyError, RecursionError):
            page = None
        if not isinstance(page, list) or not all(isinstance(tag, str) and is_tag(tag) for tag in page):
            raise RegistryError(f"{what} from {client.host} are not a list of tags")
        tags.update(dict.fromkeys(page))
        following = _next(response.headers.get("Link", ""), url)
        if not following or not page:
            return list(tags)
        url = following
    raise RegistryError(f"{what} from {client.host} don't end")


def _manifest(name: str, client: Client) -> str:
    return f"manifest {client.endpoint.repository}{'@' if is_digest(name) else ':'}{name}"


def _next(link: str, url: str) -> str:
    """Return the URL of a list's next page, ``Link: <URL>; rel="next"`` (RFC 8288), at the same registry, or ""."""
    target, _, parameters = link.strip().partition(">")
    if not target.startswith("<") or "next" not in parameters:
        return ""
    following = urljoin(url, target[1:])
    return (
        following
        if origin(following) == origin(url)
        else urlsplit(url)._replace(query=urlsplit(following).query).geturl()
    )
