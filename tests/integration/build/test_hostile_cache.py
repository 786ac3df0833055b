"""`--cache-from`: a cache is another's word, and what of it isn't trusted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from minibox.build.remote_cache.document import BUILDKIT, MEDIA_TYPE
from tests.integration.build.remote_caches import (
    ONE,
    Machines,
    build,
    listed,
    of,
    reused,
    root_machines,
    to,
)
from tests.registries import (
    LAYER,
    MANIFEST,
    FakeRegistry,
    MadeImage,
    descriptor,
    digest_of,
    manifest_of,
)
from tests.unit.layers import tar_of

__all__ = ["root_machines"]

Cache = tuple[dict[str, Any], dict[str, Any], bytes]


def put(registry: FakeRegistry, manifest: dict[str, Any], config: Any, *blobs: bytes) -> None:
    """Put another cache to the tag: ``config`` as bytes or JSON, and these blobs."""
    data = config if isinstance(config, bytes) else json.dumps(config).encode()
    registry.blobs.update({digest_of(each): each for each in (data, *blobs)})
    manifest = {**manifest, "config": {**manifest["config"], "digest": digest_of(data), "size": len(data)}}
    registry.manifests["app/cache"] = (MANIFEST, json.dumps(manifest).encode())


def layers_of(*blobs: bytes, **more: Any) -> list[dict[str, Any]]:
    return [descriptor(each, "application/vnd.oci.image.layer.v1.tar", **more) for each in blobs]


def another_layer(data: bytes) -> Callable[[FakeRegistry, dict[str, Any], dict[str, Any]], None]:
    return lambda registry, manifest, config: put(registry, {**manifest, "layers": layers_of(data)}, config, data)


def another_config(change: Callable[[dict[str, Any]], Any]) -> Callable[[FakeRegistry, Any, dict[str, Any]], None]:
    return lambda registry, manifest, config: put(registry, manifest, change(config))


def other_bytes(registry: FakeRegistry, manifest: dict[str, Any], config: dict[str, Any]) -> None:
    digest = manifest["layers"][0]["digest"]
    registry.blobs[digest] = bytes(len(registry.blobs[digest]))


def cut_short(registry: FakeRegistry, manifest: dict[str, Any], config: dict[str, Any]) -> None:
    digest = manifest["layers"][0]["digest"]
    registry.blobs[digest] = registry.blobs[digest][:1000]


def other_config_bytes(registry: FakeRegistry, manifest: dict[str, Any], config: dict[str, Any]) -> None:
    digest = manifest["config"]["digest"]
    registry.blobs[digest] = bytes(len(registry.blobs[digest]))


def gone(registry: FakeRegistry, manifest: dict[str, Any], config: dict[str, Any]) -> None:
    del registry.blobs[manifest["layers"][0]["digest"]]


def larger(registry: FakeRegistry, manifest: dict[str, Any], config: dict[str, Any]) -> None:
    layers = [{**each, "size": each["size"] + 1} for each in manifest["layers"]]
    put(registry, {**manifest, "layers": layers}, config)


def enormous(registry: FakeRegistry, manifest: dict[str, Any], config: dict[str, Any]) -> None:
    layers = [{**each, "size": 1 << 49} for each in manifest["layers"]]
    put(registry, {**manifest, "layers": layers}, config)


def compressed(registry: FakeRegistry, manifest: dict[str, Any], config: dict[str, Any]) -> None:
    put(registry, {**manifest, "layers": [{**each, "mediaType": LAYER} for each in manifest["layers"]]}, config)


def an_image(registry: FakeRegistry, manifest: dict[str, Any], config: dict[str, Any]) -> None:
    registry.add(MadeImage({"a": b"1"}), "cache")


def a_newer_one(registry: FakeRegistry, manifest: dict[str, Any], config: dict[str, Any]) -> None:
    newer = {**manifest["config"], "mediaType": MEDIA_TYPE.replace("v1", "v2")}
    put(registry, {**manifest, "config": newer}, config)


BROKEN = {
    "other bytes": (other_bytes, "has another digest"),
    "cut short": (cut_short, "but the manifest says"),
    "gone": (gone, "404"),
    "larger": (larger, "but the manifest says"),
    "enormous": (enormous, "it needs"),
    "compressed": (compressed, "tar+gzip"),
    "no tar": (another_layer(b"no tar at all" * 99), "a line of the cache"),
    "leaves the root": (another_layer(tar_of({"../../../escaped": b"x"}).getvalue()), "a line of the cache"),
    "other bytes of the config": (other_config_bytes, "has another digest"),
    "no JSON": (another_config(lambda config: b"{"), "its config is damaged"),
    "an image": (an_image, "it is an image, not a build cache"),
    "newer": (a_newer_one, "not a build cache of this minibox"),
}


def test_a_broken_or_hostile_cache_costs_a_note(root_machines: Machines, registry: FakeRegistry) -> None:
    here, there = root_machines(), root_machines()
    build(here, ONE, *to(registry))
    sound = registry.manifests["app/cache"], dict(registry.blobs)
    manifest, config = json.loads(sound[0][1]), listed(registry)
    for kind, (breaks, says) in BROKEN.items():
        registry.manifests["app/cache"], registry.blobs = sound[0], dict(sound[1])
        breaks(registry, manifest, config)
        shutil.rmtree(there.box.directory / "root/build/lines", ignore_errors=True)
        lines = build(there, ONE, *of(registry))
        notes = [each for each in lines if each.startswith("minibox: ") and "cache" in each]
        assert len(notes) == 1 and says in notes[0], (kind, lines)
        assert reused(lines) == 0, (kind, lines)
    assert not list(there.box.directory.parent.glob("**/escaped"))
    registry.manifests["app/cache"], registry.blobs = sound[0], dict(sound[1])
    shutil.rmtree(there.box.directory / "root/build/lines")
    assert reused(build(there, ONE, *of(registry))) == 1
    assert there.sh("cat /random") == here.sh("cat /random")


def test_another_parent_is_no_hit(root_machines: Machines, registry: FakeRegistry) -> None:
    here, there = root_machines(), root_machines()
    build(here, ONE, *to(registry))
    config = listed(registry)
    config["lines"][0]["parent"] = digest_of(b"another")
    put(registry, json.loads(registry.manifests["app/cache"][1]), config)
    lines = build(there, ONE, *of(registry))
    assert reused(lines) == 0 and not any(each.startswith("minibox: ") for each in lines)


def test_a_damaged_blob_of_the_store_is_fetched_again(root_machines: Machines, registry: FakeRegistry) -> None:
    here, there = root_machines(), root_machines()
    build(here, ONE, *to(registry))
    (layer,) = json.loads(registry.manifests["app/cache"][1])["layers"]
    blob = there.box.directory / "root/images/blobs/sha256" / layer["digest"][7:]
    blob.write_bytes(bytes(layer["size"]))
    assert reused(build(there, ONE, *of(registry))) == 1
    assert there.sh("cat /random") == here.sh("cat /random")


@pytest.mark.parametrize("form", ["index", "manifest"])
def test_a_cache_of_buildkit_is_refused_by_name(root_machines: Machines, registry: FakeRegistry, form: str) -> None:
    config = b'{"layers":[],"records":[]}'
    registry.blobs[digest_of(config)] = config
    kept = descriptor(config, BUILDKIT)
    if form == "index":
        kind = "application/vnd.oci.image.index.v1+json"
        value: dict[str, Any] = {"schemaVersion": 2, "mediaType": kind, "manifests": [kept]}
    else:
        kind = MANIFEST
        value = json.loads(manifest_of(config, [], {"config": kept}))
    registry.manifests["app/cache"] = (kind, json.dumps(value).encode())
    said = root_machines().refused(ONE, "--network", "none", *of(registry))
    assert "it is a cache of BuildKit" in said and "--cache-to" in said
