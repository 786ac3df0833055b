"""An image of the store, as a reference names it. On the hot path."""

from __future__ import annotations

from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@record
class ResolvedImage:
    """An image of the store.

    Attributes:
        reference: the name in full, ``docker.io/library/base:latest``.
        digest: of the manifest, ``sha256:<hex>``.
        config: the OCI image config (application/vnd.oci.image.config.v1+json) as parsed JSON.
        chain_ids: of the layers, bottom first, ``sha256:<hex>``.
        config_digest: of the config, which is what users see as the image's id.
    """

    reference: str
    digest: str
    config: dict[str, Any]
    chain_ids: tuple[str, ...]
    config_digest: str
