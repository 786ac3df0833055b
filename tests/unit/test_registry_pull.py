"""Pulling from registries that break off, refuse and lie: the error names blob and host, the store stays sound."""

from __future__ import annotations

import gzip
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minibox.config import RegistryConfig
from minibox.errors import MiniboxError, RegistryError, StoreError, Unauthorized
from minibox.image import layer, progress
from minibox.image.layer import unpack_layers
from minibox.image.platform import parse_platform
from minibox.image.reference import parse
from minibox.image.registry.client import Client, NotFound
from minibox.image.registry.credentials import Credential
from minibox.image.registry.endpoint import endpoints
from minibox.image.registry.pull import Pull
from minibox.image.registry.transport import Transport
from minibox.image.store import ImageStore
from tests.registries import INDEX, LAYER, MANIFEST, Answer, FakeRegistry, MadeImage, descriptor, digest_of, manifest_of

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
        go_on.wait(10)
        return None

    registry.rule(BLOBS + digest_of(image.layers[0]), slowly)
    events = []
    first = threading.Thread(target=pull)
    first.start()
    assert begun.wait(10)

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
        (Answer(401), "wants a login: it doesn't say of which kind", Unauthorized),
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


def test_nobody_listens(pull, store, registry):
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        registry.host = f"127.0.0.1:{taken.getsockname()[1]}"
        refused(pull, store, registry.host, "Connection refused")


# ---- lies -------------------------------------------------------------------------------------------


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
        (INDEX, {}, "says to be"),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", {}, "schema 1"),
        (MANIFEST, {"schemaVersion": 1}, "schema 1"),
        ("text/html", {"mediaType": "text/html"}, "not an image"),
        (MANIFEST, {"mediaType": 5}, "says to be"),
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
        (b"<html>", "is no JSON"),
        (b"[]", "is no JSON object"),
        (b"{}", "has no layers"),
        (b'{"rootfs": {"diff_ids": ["sha256:' + b"0" * 64 + b'"]}}', "has 1 diff IDs, and its manifest 2 layers"),
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


# ---- redirects and logins ---------------------------------------------------------------------------


def wants_login(registry, header='Basic realm="r"'):
    registry.rule(".* /v2/app", lambda request: None if "authorization" in request.headers else Answer(401, WWW_Authenticate=header))  # fmt: skip


ALICE = Credential("alice", "secret", "the test")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_login_does_not_follow_to_another_host(pull, store, image, registry, elsewhere, status):
    wants_login(registry)
    elsewhere.blobs = registry.blobs
    registry.rule(BLOBS, lambda request: Answer(status, Location=f"http://{elsewhere.host}{request.path}?signed=1"))
    elsewhere.rule("GET", lambda request: Answer(200, elsewhere.blobs[request.path.split("/")[-1].partition("?")[0]]))
    pull(credential=ALICE)
    assert len(elsewhere.requests) == 3
    assert all("authorization" not in item.headers for item in elsewhere.requests)
    assert_sound(store, f"{registry.host}/app:1")


def test_host_that_we_are_sent_to_cannot_ask_for_the_login(pull, store, image, registry, elsewhere):
    wants_login(registry)
    registry.rule(BLOBS, Answer(302, Location=f"http://{elsewhere.host}/x"))
    elsewhere.rule("GET", Answer(401, WWW_Authenticate='Basic realm="r"'))
    refused(pull, store, "answers 401", credential=ALICE, kind=Unauthorized)
    assert all("authorization" not in item.headers for item in elsewhere.requests)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("file:///etc/passwd", "can't be asked"),
        ("http://a:b@127.0.0.1/", "can't be asked"),
        ("http://[::1", "can't be asked"),
        ("/v2/app/manifests/1", "redirected more than 5 times"),
    ],
)
def test_redirect_to_nowhere(pull, store, image, registry, target, says):
    registry.rule(MANIFESTS, Answer(302, Location=target))
    refused(pull, store, says, registry.host)


def token_server(registry, *, expires_after=1 << 30, user=None):
    """Give out tokens, and take each for so many requests."""
    uses: dict[str, int] = {}

    def token(request):
        if user and request.headers.get("authorization") != user:
            return Answer(401)
        uses[f"t{len(uses)}"] = 0
        return Answer(200, json.dumps({"token": f"t{len(uses) - 1}"}).encode())

    def check(request):
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if given in uses and uses[given] < expires_after:
            uses[given] += 1
            return None
        realm = f'Bearer realm="http://{registry.host}/token",service="the registry",scope="repository:app:pull"'
        return Answer(401, WWW_Authenticate=realm)

    registry.rule("GET /token", token)
    registry.rule(".* /v2/app", check)


def test_token_is_got_once_and_used(pull, store, image, registry):
    token_server(registry)
    pull()
    (asked,) = registry.asked("GET /token")
    assert asked.path == "/token?service=the+registry&scope=repository%3Aapp%3Apull"
    assert "authorization" not in asked.headers


def test_token_that_expires_is_got_anew(pull, store, image, registry):
    token_server(registry, expires_after=2)
    pull()
    assert 2 <= len(registry.asked("GET /token")) <= 4
    assert_sound(store, f"{registry.host}/app:1")


def test_token_server_wants_the_password(pull, store, image, registry):
    token_server(registry, user="Basic YWxpY2U6c2VjcmV0")
    refused(pull, store, "anonymous users get none", kind=Unauthorized)
    refused(pull, store, "user name or password is wrong", kind=Unauthorized, credential=Credential("alice", "x"))
    pull(credential=ALICE)
    assert "account=alice" in registry.asked("GET /token")[-1].path


def test_identity_token_is_exchanged(pull, store, image, registry):
    token_server(registry)
    bodies = []

    def exchange(request):
        bodies.append(request.read().decode())
        return Answer(200, b'{"access_token": "t0"}')

    registry.rule("POST /token", exchange)
    pull()  # after which t0 is known
    store.layout.remove_name(f"{registry.host}/app:1")
    pull(credential=Credential("<token>", "refresh me"))
    assert "grant_type=refresh_token" in bodies[0] and "refresh_token=refresh+me" in bodies[0]


@pytest.mark.parametrize(
    "answer", [Answer(200, b"no JSON"), Answer(200, b"[]"), Answer(200, b'{"token": "a\\nb"}'), Answer(500)]
)
def test_token_server_that_gives_none(pull, store, image, registry, answer):
    registry.rule("GET /token", answer)
    token_server(registry)
    refused(pull, store, f"get a token for {registry.host}")


@pytest.mark.parametrize("realm", ["", "file:///etc/passwd", "http://a:b@h/", "x"])
def test_token_from_nowhere(pull, store, image, registry, realm):
    wants_login(registry, f'Bearer realm="{realm}"')
    refused(pull, store, "not a URL", registry.host)


def test_token_server_that_is_busy_is_asked_again(pull, store, image, registry):
    registry.rule("GET /token", Answer(503), times=1)
    registry.rule("GET /token", Answer(200, b'{"token": "t', cut_after=5), times=1)
    token_server(registry)
    pull()
    assert len(registry.asked("GET /token")) == 3


def test_password_is_not_sent_unencrypted_over_the_network(pull, store, image, registry):
    wants_login(registry, 'Bearer realm="http://192.0.2.1/token"')
    refused(pull, store, "http://192.0.2.1/token", "not encrypted", credential=ALICE)


def test_wrong_password_is_tried_once(pull, store, image, registry):
    registry.rule(".* /v2/app", Answer(401, WWW_Authenticate='Basic realm="r"'))
    error = refused(pull, store, "refuses the login of 'alice' in the test", credential=ALICE, kind=Unauthorized)
    assert error.hint == f"minibox login {registry.host}"
    assert len(registry.asked(MANIFESTS)) == 2


def test_pull_that_is_called_off_ends_at_once(pull, store, image, registry):
    """One layer is refused while another hangs: nobody waits for that."""
    go_on = threading.Event()
    registry.rule(BLOBS + digest_of(image.layers[0]), lambda request: go_on.wait(30) and None)
    registry.rule(BLOBS + digest_of(image.layers[1]), Answer(404))
    began = time.monotonic()
    refused(pull, store, digest_of(image.layers[1]), registry.host)
    assert time.monotonic() - began < 5
    go_on.set()
