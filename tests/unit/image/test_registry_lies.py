"""Pulling from registries that lie: the error names blob and host, the store stays sound."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from minibox.errors import StoreError
from tests.registries import INDEX, LAYER, MANIFEST, Answer, MadeImage, descriptor, digest_of, manifest_of
from tests.registry_pulls import BLOBS, MANIFESTS, MIB, refused


def test_layer_with_another_digest(pull, store, image, registry):
    layer = image.layers[0]
    registry.blobs[digest_of(layer)] = layer[:-1] + bytes([layer[-1] ^ 1])
    refused(pull, store, f"blob {digest_of(layer)} from {registry.host} has another digest")
    assert not list(Path(store.root, "tmp").iterdir())


@pytest.mark.parametrize("change", [b"", b"more"])
@pytest.mark.parametrize("announced", [True, False])
def test_layer_with_another_size(pull, store, image, registry, change, announced):
    layer = image.layers[0]
    body = layer + change if change else layer[:-1]
    headers = {} if announced else {"Content_Length": "", "Connection": "close"}
    registry.rule(BLOBS + digest_of(layer), Answer(200, body, cut_after=len(body), **headers))
    refused(pull, store, digest_of(layer), registry.host)


def test_manifest_with_another_digest(pull, store, image, registry):
    registry.rule(MANIFESTS + "1", Answer(200, image.manifest + b" ", Content_Type=MANIFEST, Docker_Content_Digest=image.digest))  # fmt: skip
    refused(pull, store, f"manifest app:1 from {registry.host} should have the digest {image.digest}")
    registry.rules.pop()
    registry.manifests[f"app/{image.digest}"] = (MANIFEST, image.manifest + b" ")
    registry.rule(MANIFESTS, lambda request: Answer(200, image.manifest + b" ", Content_Type=MANIFEST))
    refused(pull, store, image.digest, registry.host, name=f"app@{image.digest}")


@pytest.mark.parametrize(
    ("media_type", "more", "says"),
    [
        (INDEX, {}, "says that it is"),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", {}, "schema 1"),
        (MANIFEST, {"schemaVersion": 1}, "schema 1"),
        ("text/html", {"mediaType": "text/html"}, "not an image"),
        (MANIFEST, {"mediaType": 5}, "says that it is"),
        (MANIFEST, {"manifests": []}, "members of another"),
        (INDEX, {"mediaType": INDEX}, "members of another"),
        (MANIFEST, {"layers": None}, "not a list of descriptors"),
        (MANIFEST, {"layers": ["x"]}, "not a descriptor"),
        (MANIFEST, {"layers": [{"mediaType": LAYER, "digest": "sha256:../..", "size": 1}]}, "not a sha256 digest"),
        (MANIFEST, {"layers": [{"mediaType": LAYER, "digest": "sha256:" + "0" * 64, "size": -1}]}, "not a size"),
        (MANIFEST, {"layers": [{"mediaType": "x/y", "digest": "sha256:" + "0" * 64, "size": 1}]}, "can't be unpacked"),
        (MANIFEST, {"layers": [descriptor(b"", LAYER)] * 5000}, "5000 layers"),
        (MANIFEST, {"config": None}, "not a descriptor"),
    ],
)
def test_manifest_that_is_not_what_it_says(pull, store, image, registry, media_type, more, says):
    data = manifest_of(image.config, image.layers, more)
    registry.manifests["app/1"] = (media_type, data)
    refused(pull, store, says, f"manifest app:1 from {registry.host}")
    assert not Path(store.root, "layers").exists()


@pytest.mark.parametrize("data", [b"", b"<html>", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"schemaVersion": 2}'])
def test_manifest_that_is_none(pull, store, registry, data):
    registry.manifests["app/1"] = (MANIFEST, data)
    refused(pull, store, f"manifest app:1 from {registry.host}")


@pytest.mark.parametrize("announced", [True, False])
def test_huge_manifest_is_refused_while_it_comes(pull, store, registry, announced):
    sent = []

    def huge(request):
        handler = request.handler
        handler.send_response(200)
        handler.send_header("Content-Type", MANIFEST)
        handler.send_header("Content-Length", str(50 * MIB)) if announced else handler.send_header(
            "Connection", "close"
        )
        handler.end_headers()
        try:
            for _ in range(50):
                handler.wfile.write(b" " * MIB)
                sent.append(MIB)
        except OSError:
            pass
        handler.close_connection = True
        return Answer(200)

    registry.rule(MANIFESTS, huge)
    refused(pull, store, f"manifest app:1 from {registry.host} is larger than the 4194304 bytes")
    assert len(sent) < 20


def test_index_that_lies_about_a_manifest(pull, store, image, registry):
    for change in ({"size": 1}, {"mediaType": INDEX}, {"digest": digest_of(b"other")}):
        item = {**descriptor(image.manifest, MANIFEST), **change}
        index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [item]}).encode()
        registry.manifests["app/1"] = (INDEX, index)
        registry.manifests[f"app/{digest_of(b'other')}"] = (MANIFEST, image.manifest)
        refused(pull, store, registry.host)


def test_index_of_itself_ends(pull, store, registry):
    """Nested deeper than anybody needs."""
    inner = b"{}"
    for _ in range(6):
        inner = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(inner, INDEX)]}).encode()
        registry.manifests[f"app/{digest_of(inner)}"] = registry.manifests["app/1"] = (INDEX, inner)
    refused(pull, store, "nested more than 4 deep")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (b"<html>", "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b"{}", "has no layers"),
        (b'{"rootfs": {"diff_ids": ["sha256:' + b"0" * 64 + b'"]}}', "has 1 diff IDs, but its manifest has 2 layers"),
        (b'{"rootfs": {"diff_ids": ["md5:1", 2]}}', "not a list of sha256 digests"),
    ],
)
def test_config_that_is_none(pull, store, image, registry, config, says):
    registry.blobs[digest_of(config)] = config
    registry.manifests["app/1"] = (MANIFEST, manifest_of(config, image.layers))
    refused(pull, store, says, f"config {digest_of(config)} from {registry.host}")
    assert not registry.asked(BLOBS + digest_of(image.layers[0]))


def test_config_that_lies(pull, store, image, registry):
    registry.blobs[digest_of(image.config)] = image.config[:-1] + b" "
    refused(pull, store, f"config {digest_of(image.config)} from {registry.host} has another digest")
    registry.blobs[digest_of(image.config)] = image.config + b" " * MIB
    refused(pull, store, f"config {digest_of(image.config)} from {registry.host} is larger")


@pytest.mark.parametrize("damage", ["truncated", "no tar", "another diff ID"])
def test_layer_that_cannot_be_unpacked(pull, store, registry, damage):
    image = MadeImage({"a": os.urandom(100_000)})
    layers = {
        "truncated": image.layers[0][:50_000],
        "no tar": gzip.compress(b"no tar" * 1000),
        "another diff ID": MadeImage({"a": b"2"}).layers[0],
    }
    layer = layers[damage]
    registry.add(image)
    registry.blobs[digest_of(layer)] = layer
    registry.manifests["app/1"] = (MANIFEST, manifest_of(image.config, [layer]))
    refused(pull, store, f"blob {digest_of(layer)} from {registry.host}", kind=StoreError)
