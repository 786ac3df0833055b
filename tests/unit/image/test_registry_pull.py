"""Pulling from registries that break off or refuse: the error names blob and host, the store stays sound."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import pytest
import urllib3

from minibox.config import RegistryConfig
from minibox.errors import RegistryError, StoreError, Unauthorized
from minibox.image import progress
from minibox.image.layer import unpack as layer
from minibox.image.reference import parse
from minibox.image.registry.client import Client, NotFound
from minibox.image.registry.download import Downloads
from minibox.image.registry.endpoint import endpoints
from minibox.image.registry.pull import Pull
from minibox.image.registry.transport import Transport
from tests.registries import INDEX, MANIFEST, Answer, MadeImage, descriptor, digest_of
from tests.registry_pulls import BLOBS, MADE_B, MANIFESTS, MIB, assert_sound, refused

# ---- what goes well ---------------------------------------------------------------------------------


def test_pulled_image_has_the_registrys_bytes(pull, store, image, registry):
    pulled = pull()
    assert (pulled.digest, pulled.is_new) == (image.digest, True)
    resolved = store.resolve(f"{registry.host}/app:1")
    assert resolved.digest == image.digest
    assert store.layout.read_blob(image.digest) == image.manifest
    assert_sound(store, f"{registry.host}/app:1")
    assert not list(Path(store.root, "tmp").iterdir())


def test_pull_of_what_is_there_asks_for_the_digest_only(pull, store, image, registry):
    pull()
    registry.requests.clear()
    assert not pull().is_new
    assert [item.method for item in registry.requests if item.path != "/v2/"] == ["HEAD"]


def test_blob_that_is_there_is_not_fetched_again(pull, image, registry):
    pull()
    registry.add(MadeImage({"a": b"1"}, {"c": b"3"}), "2")
    registry.requests.clear()
    events: list[progress.Progress] = []
    pull("app:2", on_progress=events.append)
    assert len(registry.asked(BLOBS)) == 2  # its config and its first layer
    assert [event.state for event in events if event.digest == digest_of(image.layers[1])][0] == progress.EXISTS


def test_layer_is_unpacked_while_the_one_above_it_comes(pull, image, registry):
    first, second = (digest_of(layer) for layer in image.layers)
    in_place = threading.Event()
    registry.rule(BLOBS + second, lambda request: None if in_place.wait(30) else Answer(404))

    def told(event):
        if (event.digest, event.state) == (first, progress.PULLED):
            in_place.set()

    pull(on_progress=told)


@pytest.mark.parametrize("late", [0, 1])
def test_two_layers_are_unpacked_at_once_whichever_comes_first(pull, image, registry, monkeypatch, late):
    """The late one comes when the other is being unpacked, which waits for it there."""
    begun, both = threading.Event(), threading.Barrier(2)
    registry.rule(BLOBS + digest_of(image.layers[late]), lambda request: None if begun.wait(30) else Answer(404))
    unpack = layer.unpack

    def unpack_both(*arguments, **options):
        begun.set()
        both.wait(30)
        return unpack(*arguments, **options)

    monkeypatch.setattr(layer, "unpack", unpack_both)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    pull()


def test_layer_that_is_there_and_unpacked_is_told_once(pull, image, registry):
    pull()
    registry.add(MadeImage({"a": b"1", "b": MADE_B}, {"c": b"4"}), "2")
    events: list[progress.Progress] = []
    pull("app:2", on_progress=events.append)
    assert [event.state for event in events if event.digest == digest_of(image.layers[0])] == [progress.EXISTS]


def test_damaged_blob_of_the_store_is_brought_anew(pull, store, image, registry):
    pull()
    blob = Path(store.layout.blob_path(digest_of(image.layers[1])))
    blob.write_bytes(blob.read_bytes()[:-5] + b"xxxxx")
    for path in Path(store.root, "layers").iterdir():
        path.rename(path.with_name("unfinished-" + path.name))
    pull()
    assert_sound(store, f"{registry.host}/app:1")


@pytest.mark.parametrize("damage", ["config", "manifest", "layer", "lost layer", "lost manifest"])
def test_damaged_store_is_mended_by_a_pull(pull, store, image, registry, damage):
    pull()
    blobs = {"config": image.config, "manifest": image.manifest, "layer": image.layers[1]}
    path = Path(store.layout.blob_path(digest_of(blobs[damage.split()[-1]])))
    if damage.startswith("lost"):
        path.unlink()
    else:
        path.write_bytes(b"damage")
    pull()
    assert_sound(store, f"{registry.host}/app:1")
    assert store.resolve(f"{registry.host}/app:1").digest == image.digest


@pytest.mark.parametrize("index", [b"", b"[]", b"<html>", b'{"manifests": 5}'])
def test_damaged_index_is_told_and_left_as_it_is(pull, store, image, registry, index):
    store.layout.create()
    path = Path(store.root, "images/index.json")
    path.write_bytes(index)
    with pytest.raises(StoreError, match=r"index\.json is damaged"):
        pull()
    assert path.read_bytes() == index
    assert not list(Path(store.root, "images/blobs/sha256").iterdir())


def test_image_for_the_host_is_chosen_from_an_index(pull, store, registry):
    ours, other = MadeImage({"a": b"ours"}), MadeImage({"a": b"other"}, architecture="s390x")
    platforms = [{"os": "linux", "architecture": json.loads(item.config)["architecture"]} for item in (other, ours)]
    for item in (ours, other):
        registry.add(item)
    items = [
        descriptor(item.manifest, MANIFEST, platform=platform)
        for item, platform in zip((other, ours), platforms, strict=True)
    ]
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": items}).encode()
    registry.manifests["app/1"] = registry.manifests[f"app/{digest_of(index)}"] = (INDEX, index)
    pulled = pull()
    assert pulled.digest == digest_of(index)
    name = f"{registry.host}/app"
    assert store.resolve(f"{name}:1").digest == ours.digest
    assert store.resolve(f"{name}@{pulled.digest}").digest == ours.digest
    assert not pull().is_new
    assert str(pull(platform="linux/s390x").platform) == "linux/s390x"
    assert store.resolve(f"{name}:1").digest == other.digest
    assert store.resolve(f"{name}:1").config["architecture"] == "s390x"
    with pytest.raises(RegistryError, match="nothing for linux/riscv64") as caught:
        pull(platform="linux/riscv64")
    assert "linux/s390x" in (caught.value.hint or "")


def test_pull_by_digest_is_named_by_digest(pull, store, image, registry):
    pull(f"app@{image.digest}")
    assert store.names() == (f"{registry.host}/app@{image.digest}",)
    assert store.resolve(f"{registry.host}/app@{image.digest}").digest == image.digest
    registry.requests.clear()
    assert not pull(f"app@{image.digest}").is_new
    assert not registry.asked("(GET|HEAD) /v2/app")


# ---- what breaks off --------------------------------------------------------------------------------


def test_blob_that_breaks_off_goes_on_where_it_was(pull, store, image, registry):
    registry.rule(BLOBS + digest_of(image.layers[0]), Answer(200, image.layers[0], cut_after=2 * MIB + 7), times=1)
    pull()
    assert [item.headers.get("range") for item in registry.asked(BLOBS + digest_of(image.layers[0]))] == [
        None,
        f"bytes={2 * MIB + 7}-",
    ]
    assert_sound(store, f"{registry.host}/app:1")


def test_manifest_and_config_that_break_off_are_asked_for_again(pull, store, image, registry):
    registry.rule(MANIFESTS, Answer(200, image.manifest, cut_after=9, Content_Type=MANIFEST), times=2)
    registry.rule(BLOBS + digest_of(image.config), Answer(200, image.config, cut_after=0), times=2)
    pull()
    assert_sound(store, f"{registry.host}/app:1")


def test_mirror_that_breaks_off_is_left_for_the_registry(store, image, registry, elsewhere):
    """What came from the mirror is not asked for again."""
    layer = image.layers[0]
    elsewhere.manifests, elsewhere.blobs = registry.manifests, {digest_of(image.config): image.config}
    elsewhere.rule(BLOBS + digest_of(layer), Answer(200, layer, cut_after=MIB), times=1)
    transport = Transport({})
    reference = parse(f"{registry.host}/app:1")
    config = {registry.host: RegistryConfig(mirrors=(f"http://{elsewhere.host}",))}
    clients = [
        Client(endpoint, transport, lambda: None, attempts=2, backoff_s=0.001)
        for endpoint in endpoints(reference, config)
    ]
    Pull(store, clients, lambda sources, told: None).pull(reference)
    assert [item.headers.get("range") for item in registry.asked(BLOBS + digest_of(layer))] == [f"bytes={MIB}-"]
    assert not registry.asked(MANIFESTS)
    assert_sound(store, f"{registry.host}/app:1")
    transport.close()


def test_layer_that_the_disk_cannot_hold_is_not_begun(pull, store, image, registry):
    value = json.loads(image.manifest)
    value["layers"][0]["size"] = 1 << 49
    registry.manifests["app/1"] = (MANIFEST, json.dumps(value).encode())
    error = refused(pull, store, f"blob {value['layers'][0]['digest']}", "are free", kind=StoreError)
    assert "free some space" in (error.hint or "")
    assert not registry.asked(BLOBS + value["layers"][0]["digest"])


@pytest.mark.parametrize("tags", [b"[]", b'{"tags": 5}', b'{"tags": ["../../x"]}', b'{"tags": [1]}', b"no"])
def test_tags_that_are_none(store, registry, tags):
    registry.rule("GET /v2/app/tags/list", Answer(200, tags))
    reference = parse(f"{registry.host}/app")
    client = Client(endpoints(reference, {})[0], Transport({}), lambda: None)
    with pytest.raises(RegistryError, match=f"tags of app from {registry.host} are not a list of tags"):
        Pull(store, [client], lambda sources, told: None).tags()


def test_tags_come_in_pages(store, registry):
    pages = {"": ("1", "2"), "?last=2": ("3",)}
    registry.rule(
        "GET /v2/app/tags/list",
        lambda request: Answer(
            200,
            json.dumps({"tags": pages[request.path.removeprefix("/v2/app/tags/list")]}).encode(),
            Link="" if "?" in request.path else '</v2/app/tags/list?last=2>; rel="next"',
        ),
    )
    reference = parse(f"{registry.host}/app")
    client = Client(endpoints(reference, {})[0], Transport({}), lambda: None)
    assert Pull(store, [client], lambda sources, told: None).tags() == ["1", "2", "3"]


@pytest.mark.parametrize("answer", ["whole", "other part", "416"])
def test_registry_that_sends_no_parts_sends_the_whole(pull, store, image, registry, answer):
    layer = image.layers[0]
    answers = {
        "whole": Answer(200, layer),
        "other part": Answer(206, layer[5:], Content_Range=f"bytes 5-{len(layer) - 1}/{len(layer)}"),
        "416": Answer(416),
    }
    registry.rule(BLOBS + digest_of(layer), Answer(200, layer, cut_after=MIB), times=1)
    registry.rule(BLOBS + digest_of(layer), answers[answer], times=1)
    pull()
    assert_sound(store, f"{registry.host}/app:1")


def test_download_that_was_given_up_is_resumed_by_the_next_pull(pull, store, image, registry):
    layer = image.layers[0]
    left = [3]

    def cut(request):
        if not left[0]:
            return None
        left[0] -= 1
        return Answer(206 if "range" in request.headers else 200, layer[:0] if left[0] < 2 else layer, cut_after=MIB,
                      Content_Length=str(len(layer) - (MIB if "range" in request.headers else 0)),
                      Content_Range=f"bytes {MIB}-{len(layer) - 1}/{len(layer)}")  # fmt: skip

    registry.rule(BLOBS + digest_of(layer), cut)
    refused(pull, store, f"blob {digest_of(layer)}", registry.host, "broke off")
    assert [path.stat().st_size for path in Path(store.root, "tmp").glob("*.partial")] == [MIB]
    registry.requests.clear()
    pull()
    assert registry.asked(BLOBS + digest_of(layer))[0].headers["range"] == f"bytes={MIB}-"
    assert not list(Path(store.root, "tmp").iterdir())


def test_damaged_rest_of_a_download_is_begun_anew(pull, store, image, registry):
    layer = image.layers[0]
    store.layout.create()
    Path(store.root, "tmp", f"{digest_of(layer)[7:]}.partial").write_bytes(b"x" * 1000)
    pull()
    assert [item.headers.get("range") for item in registry.asked(BLOBS + digest_of(layer))] == ["bytes=1000-", None]
    assert_sound(store, f"{registry.host}/app:1")


def test_two_pulls_at_once_download_a_blob_once(pull, store, image, registry):
    begun, go_on = threading.Event(), threading.Event()

    def slowly(request):
        begun.set()
        go_on.wait(60)
        return None

    registry.rule(BLOBS + digest_of(image.layers[0]), slowly)
    events = []
    first = threading.Thread(target=pull)
    first.start()
    assert begun.wait(60)

    def seen(event):
        events.append(event)
        if event.state == progress.WAITING:
            go_on.set()

    pull(on_progress=seen)
    first.join()
    assert progress.WAITING in [event.state for event in events]
    assert len(registry.asked(BLOBS + digest_of(image.layers[0]))) == 1
    assert_sound(store, f"{registry.host}/app:1")


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_registry_that_is_busy_is_asked_again(pull, store, image, registry, status):
    registry.rule(MANIFESTS, Answer(status, Retry_After="0"), times=2)
    registry.rule(BLOBS, Answer(status), times=2)
    pull()
    assert_sound(store, f"{registry.host}/app:1")


@pytest.mark.parametrize(
    ("answer", "says", "kind"),
    [
        (Answer(500), "answers 500", RegistryError),
        (Answer(429, Retry_After="1000"), "answers 429", RegistryError),
        (Answer(404), "answers 404", NotFound),
        (
            Answer(403, b'{"errors":[{"code":"DENIED","message":"not yours"}]}'),
            "403 Forbidden: not yours",
            Unauthorized,
        ),
        (Answer(401), "wants a login: it doesn't say which kind", Unauthorized),
        (Answer(401, WWW_Authenticate='Basic realm="r"'), "wants a login", Unauthorized),
        (Answer(418, b"\xff" * 1000), "answers 418", RegistryError),
    ],
)
@pytest.mark.parametrize("what", ["manifest", "config", "layer"])
def test_refusal_is_told_with_host_and_thing(pull, store, image, registry, answer, says, kind, what):
    digest = {"config": digest_of(image.config), "layer": digest_of(image.layers[1])}.get(what, "")
    registry.rule(MANIFESTS if what == "manifest" else BLOBS + digest, answer)
    error = refused(pull, store, says, registry.host, kind=kind)
    if kind is Unauthorized:
        assert f"minibox login {registry.host}" in (error.hint or "")
    elif digest:
        assert digest in str(error)
    if answer.status == 429:
        assert "1000 seconds" in (error.hint or "")
        assert len(registry.asked(MANIFESTS if what == "manifest" else BLOBS + digest)) == 1


def test_what_has_just_come_is_called_off_without_an_error(store, registry):
    """Else that error would be told, and not the one for which all is called off."""
    with urllib3.PoolManager() as pool:
        answer = pool.request("GET", f"http://{registry.host}/v2/", preload_content=False)
        answer.read()
        answer.release_conn()
        client = Client(endpoints(parse(f"{registry.host}/app:1"), {})[0], Transport({}), lambda: None)
        downloads = Downloads(store.layout, [client], progress.silent)
        downloads._open.add(answer)
        downloads.stop()


def test_nobody_listens(pull, store, registry):
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        registry.host = f"127.0.0.1:{taken.getsockname()[1]}"
        refused(pull, store, registry.host, "Connection refused")


def test_pull_that_is_called_off_ends_at_once(pull, store, image, registry):
    """One layer is refused while another hangs: nobody waits for that."""
    go_on, gave_up = threading.Event(), threading.Event()

    def hang(request):
        if not go_on.wait(60):
            gave_up.set()

    registry.rule(BLOBS + digest_of(image.layers[0]), hang)
    registry.rule(BLOBS + digest_of(image.layers[1]), Answer(404))
    refused(pull, store, digest_of(image.layers[1]), registry.host)
    assert not gave_up.is_set()
    go_on.set()
