"""Pulling in tests: an image, a registry that does what it is told, and a store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from minibox.errors import MiniboxError, RegistryError
from minibox.image import progress
from minibox.image.layer.unpack import unpack_layers
from minibox.image.platform import parse_platform
from minibox.image.reference import parse
from minibox.image.registry.client import Client
from minibox.image.registry.endpoint import endpoints
from minibox.image.registry.pull import Pull
from minibox.image.registry.transport import Transport
from minibox.image.store import ImageStore
from tests.registries import Answer, FakeRegistry, MadeImage, digest_of

MIB = 1 << 20
MADE_B = os.urandom(3 * MIB)
MADE = MadeImage({"a": b"1", "b": MADE_B}, {"c": b"3"})
BLOBS = "GET /v2/app/blobs/"
MANIFESTS = "GET /v2/app/manifests/"


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    fake = FakeRegistry()
    fake.rule("GET /v2/$", Answer(200, b"{}"))
    yield fake
    fake.close()


@pytest.fixture
def elsewhere() -> Iterator[FakeRegistry]:
    fake = FakeRegistry()
    yield fake
    fake.close()


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(str(tmp_path / "root"))


@pytest.fixture
def pull(store, registry):
    """Pull ``app:1``, or another reference, from ``registry`` into ``store``."""
    transport = Transport({})

    def unpack(sources, told):
        unpack_layers(store.root, sources, on_progress=told)

    def pull(name="app:1", credential=None, platform="", attempts=3, on_progress=progress.silent):
        reference = parse(f"{registry.host}/{name}")
        clients = [
            Client(endpoint, transport, lambda: credential, attempts=attempts, backoff_s=0.001)
            for endpoint in endpoints(reference, {})
        ]
        wanted = parse_platform(platform) if platform else None
        return Pull(store, clients, unpack, platform=wanted, on_progress=on_progress).pull(reference)

    yield pull
    transport.close()


@pytest.fixture
def image(registry) -> MadeImage:
    return registry.add(MADE, "1", "latest")


def assert_sound(store: ImageStore, *names: str) -> None:
    """The store has these images and no other, nothing damaged, nothing half."""
    assert store.names() == names
    for blob in Path(store.root, "images/blobs/sha256").glob("*"):
        assert digest_of(blob.read_bytes()) == f"sha256:{blob.name}"
    assert not [path for path in Path(store.root).glob("layers/*") if not (path / "diff").is_dir()]


def refused(pull, store, *says, kind=RegistryError, name="app:1", **options):
    """The pull fails and says all of ``says``, and nothing is named in the store; the error."""
    with pytest.raises(MiniboxError) as caught:
        pull(name, **options)
    assert isinstance(caught.value, kind), repr(caught.value)
    for text in says:
        assert text in str(caught.value)
    assert_sound(store)
    return caught.value
