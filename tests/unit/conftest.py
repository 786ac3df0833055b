"""What tests of registries share."""

from __future__ import annotations

from tests.pulls import elsewhere, image, pull, registry, store

__all__ = ["elsewhere", "image", "pull", "registry", "store"]
