"""The image that a reference names. On the hot path."""

from __future__ import annotations

from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@record
class ResolvedImage:
    """An image of the store.

    Attributes:
        reference: the full name, ``docker.io/library/base:latest``.
        digest: the digest of the manifest, ``sha256:<hex>``.
        config: the OCI image config (application/vnd.oci.image.config.v1+json) as parsed JSON.
        chain_ids: the chain IDs of the layers, bottom first, ``sha256:<hex>``.
        config_digest: the digest of the config, which users see as the image's id.
    """

    reference: str
    digest: str
    config: dict[str, Any]
    chain_ids: tuple[str, ...]
    config_digest: str
