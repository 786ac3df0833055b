"""What tests of registries share."""

from __future__ import annotations

from tests.registry_pulls import elsewhere, image, pull, registry, store

__all__ = ["elsewhere", "image", "pull", "registry", "store"]
