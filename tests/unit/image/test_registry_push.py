"""Pushing: what is sent and what is not, uploads that break off, registries that send us elsewhere."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from minibox.errors import ImageNotFound, MiniboxError, RegistryError, StoreError, Unauthorized
from minibox.image import progress
from minibox.image.archive.importer import add_image
from minibox.image.platform import Platform, parse_platform
from minibox.image.reference import ImageName, parse
from minibox.image.registry import upload
from minibox.image.registry.client import Client
from minibox.image.registry.credentials import Credential
from minibox.image.registry.endpoint import endpoints
from minibox.image.registry.push import find_pushed, mountable, push
from minibox.image.registry.transport import Transport
from minibox.image.store import ImageStore
from tests.registries import INDEX, MANIFEST, Answer, FakeRegistry, descriptor, digest_of
from tests.unit.layers import tar_of

CONTENT = os.urandom(300_000)
UPLOADS = " /v2/app/blobs/uploads/"


@pytest.fixture
def store(tmp_path: Path, registry) -> ImageStore:
    store = ImageStore(str(tmp_path / "root"))
    tars = [tar_of({"a": CONTENT}), tar_of({"b": b"2"})]
    add_image(store.layout, f"{registry.host}/app:1", [io.BytesIO(tar.getvalue()) for tar in tars])
    return store


@pytest.fixture
def send(store, registry):
    """Push ``app:1`` of ``store``; the descriptor of what was pushed."""
    transport = Transport({})

    def send(credential=None, platform="", all_platforms=False, on_progress=progress.silent):
        reference = parse(f"{registry.host}/app:1")
        (endpoint,) = endpoints(reference, {})
        client = Client(endpoint, transport, lambda: credential, "pull,push", attempts=3, backoff_s=0.001)
        wanted = parse_platform(platform) if platform else None
        named = find_pushed(
            store.layout, ImageName(str(reference), reference), platform=wanted, all_platforms=all_platforms
        )
        assert named
        return push(store.layout, client, named, "1", mountable(store.layout, reference), on_progress)

    yield send
    transport.close()


def blob_of(store, registry, number):
    image = store.resolve(f"{registry.host}/app:1")
    return store.layout.read_json(image.digest)["layers"][number]


def refused(send, *says, kind=RegistryError, **options):
    with pytest.raises(MiniboxError) as caught:
        send(**options)
    assert isinstance(caught.value, kind), repr(caught.value)
    for text in says:
        assert text in str(caught.value)
    return caught.value


def test_pushed_image_has_the_stores_bytes(send, store, registry):
    image = store.resolve(f"{registry.host}/app:1")
    sent = send()
    assert sent == {"mediaType": MANIFEST, "digest": image.digest, "size": len(registry.manifests["app/1"][1])}
    assert digest_of(registry.manifests["app/1"][1]) == image.digest
    assert len(registry.blobs) == 3


def test_manifest_that_does_not_say_what_it_is(send, store, registry):
    """As umoci writes them."""
    name = f"{registry.host}/app:1"
    manifest = store.layout.read_json(store.resolve(name).digest)
    del manifest["mediaType"]
    store.layout.set_name(name, store.layout.write_json(manifest, MANIFEST))
    assert send()["mediaType"] == MANIFEST


def test_blob_that_is_there_is_not_sent(send, registry):
    send()
    registry.requests.clear()
    events: list[progress.Progress] = []
    send(on_progress=events.append)
    assert not registry.asked("POST")
    assert [event.state for event in events].count(progress.THERE) == 2


def test_blob_of_another_repository_is_mounted(send, store, registry):
    image = store.layout.descriptors()[0]
    store.layout.set_name(f"{registry.host}/team/base:1", image)
    registry.rule("POST /v2/app/blobs/uploads/[?]mount", Answer(201))
    events: list[progress.Progress] = []
    send(on_progress=events.append)
    (first, second) = registry.asked("POST /v2/app/blobs/uploads/[?]mount")
    assert first.path.endswith("&from=team%2Fbase")
    assert [event.detail for event in events if event.state == progress.MOUNTED] == ["team/base", "team/base"]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_registry_that_refuses_a_mount_gets_the_blob(send, store, registry, status):
    store.layout.set_name(f"{registry.host}/team/base:1", store.layout.descriptors()[0])
    registry.rule("POST /v2/app/blobs/uploads/[?]mount", Answer(status))
    send()
    assert len(registry.blobs) == 3


def test_registry_that_mounts_nothing_gets_the_blob(send, store, registry):
    store.layout.set_name(f"{registry.host}/team/base:1", store.layout.descriptors()[0])
    send()
    assert len(registry.blobs) == 3


def test_large_blob_goes_in_chunks(send, registry, monkeypatch):
    monkeypatch.setattr(upload, "CHUNK_BYTES", 100_000)
    send()
    ranges = [item.headers.get("content-range") for item in registry.asked("(PATCH|PUT)" + UPLOADS)]
    assert [text for text in ranges if text][:3] == ["0-99999", "100000-199999", "200000-299999"]
    assert len(registry.blobs) == 3


@pytest.mark.parametrize("read", [0, 50_000])
@pytest.mark.parametrize("chunk", [100_000, 1 << 20])
def test_upload_that_breaks_off_goes_on(send, store, registry, monkeypatch, read, chunk):
    monkeypatch.setattr(upload, "CHUNK_BYTES", chunk)
    layer = blob_of(store, registry, 0)["digest"]

    def cut(request):
        if int(request.headers["content-length"]) < 100_000:
            return None
        left[0] -= 1
        if left[0] < 0:
            return None
        registry.uploads[request.path.partition("?")[0]] += request.read(read)
        request.handler.connection.close()
        return Answer(500, cut_after=0)

    left = [2]
    registry.rule("(PATCH|PUT)" + UPLOADS, cut)
    send()
    assert digest_of(registry.blobs[layer]) == layer


@pytest.mark.parametrize("status", [500, 503, 429])
def test_registry_that_is_busy_is_asked_again(send, registry, status):
    registry.rule("(POST|PUT)", Answer(status, Connection="close"), times=2)
    send()
    assert "app/1" in registry.manifests


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT" + UPLOADS, "PUT /v2/app/manifests"])
@pytest.mark.parametrize(("status", "kind"), [(500, RegistryError), (403, Unauthorized), (401, Unauthorized)])
def test_refusal_names_host_and_thing(send, registry, method, status, kind):
    registry.rule(method, Answer(status, Connection="close"))
    refused(send, registry.host, "blob sha256:" if "manifests" not in method else "manifest app:1", kind=kind)
    assert not registry.manifests


def test_damaged_blob_is_ours(send, store, registry):
    layer = blob_of(store, registry, 0)
    path = Path(store.layout.blob_path(layer["digest"]))
    path.write_bytes(b"x" + path.read_bytes()[1:])
    refused(send, f"blob {layer['digest']} is damaged", kind=StoreError)
    path.unlink()
    refused(send, f"read blob {layer['digest']}: No such file", kind=StoreError)
    assert not registry.manifests


def test_login_does_not_follow_an_upload_to_another_host(send, store, registry):
    other = FakeRegistry()
    try:
        registry.rule(
            ".* /v2/app",
            lambda request: None if "authorization" in request.headers else Answer(401, WWW_Authenticate="Basic"),
        )
        registry.rule("POST", Answer(202, Location=f"http://{other.host}/v2/app/blobs/uploads/0"))
        other.rule("PUT", lambda request: request.read() and None or Answer(201))
        send(credential=Credential("alice", "secret"))
        assert len(other.requests) == 3
        assert all("authorization" not in item.headers for item in other.requests)
    finally:
        other.close()


@pytest.mark.parametrize("location", ["", "file:///etc/passwd"])
def test_upload_to_nowhere(send, registry, location):
    registry.rule("POST", Answer(202, Location=location))
    refused(send, "doesn't say where to send it", registry.host)


def test_registry_that_keeps_another_manifest(send, registry):
    registry.rule("PUT /v2/app/manifests", Answer(201, Docker_Content_Digest=digest_of(b"x"), Connection="close"))
    refused(send, f"stored it as {digest_of(b'x')}")


def test_one_image_of_an_index_or_all_of_it_goes(send, store, registry):
    name = f"{registry.host}/app:1"
    ours = store.layout.descriptors()[0]
    with pytest.raises(ImageNotFound, match=r"in the store is for linux/.*, not linux/s390x"):
        send(platform="linux/s390x")
    s390x = Platform("linux", "s390x", "")
    other = add_image(store.layout, f"{registry.host}/other:1", [tar_of({"o": b"1"})], platform=s390x)
    manifest = store.layout.read_blob(other.digest)
    items = [
        {**ours, "platform": store.layout.descriptors()[0]["platform"]},
        descriptor(manifest, MANIFEST, platform={"os": "linux", "architecture": "s390x"}),
    ]
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{**item, "annotations": {}} for item in items]}
    store.layout.set_name(name, store.layout.write_json(index, INDEX))
    assert send()["digest"] == ours["digest"]
    assert send(platform="s390x")["digest"] == other.digest
    pushed = send(all_platforms=True)
    assert pushed["mediaType"] == INDEX
    assert json.loads(registry.manifests["app/1"][1]) == index
    assert registry.manifests[f"app/{other.digest}"][1] == manifest
