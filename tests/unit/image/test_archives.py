"""Archives of images: what others write is loaded, what is damaged is named and changes nothing, what is saved loads."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import resource
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minibox.base.home import Home
from minibox.engine.resources import archives
from minibox.errors import ImageNotFound, StoreError
from minibox.image.archive import reader
from minibox.image.archive import save as archive_save
from minibox.image.archive.importer import add_image
from minibox.image.layer.unpack import unpack_layers
from minibox.image.store import ImageStore
from tests.unit.layers import entry, symlink, tar, tar_of

LAYERS = [tar_of({"a": b"1"}).getvalue(), tar_of({"b": b"2"}).getvalue()]


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


CONFIG = as_json({
    "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/a"]},
    "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest_of(layer)}" for layer in LAYERS]},
})  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(str(tmp_path / "root"))


def load(store: ImageStore, data: bytes) -> list[Any]:
    return archives.load(Home(store.root), io.BytesIO(data))


def docker_archive(**changed: Any) -> dict[str, bytes]:
    """Files as `podman save` and Docker before 25 name them."""
    names = [f"{digest_of(layer)}.tar" for layer in LAYERS]
    manifest = {"Config": f"{digest_of(CONFIG)}.json", "RepoTags": ["team/app:1"], "Layers": names, **changed}
    return {
        **dict(zip(names, LAYERS)), f"{digest_of(CONFIG)}.json": CONFIG, "manifest.json": as_json([manifest]),
        "repositories": as_json({"team/app": {"1": "x"}}),
    }  # fmt: skip


def oci_archive(layers: list[bytes] = LAYERS, suffix: str = "", **annotations: str) -> dict[str, bytes]:
    manifest = as_json({
        "schemaVersion": 2,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": f"sha256:{digest_of(CONFIG)}",
                   "size": len(CONFIG)},
        "layers": [{"mediaType": f"application/vnd.oci.image.layer.v1.tar{suffix}", "digest": f"sha256:{digest_of(layer)}",
                    "size": len(layer)} for layer in layers],
    })  # fmt: skip
    index = {
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": f"sha256:{digest_of(manifest)}",
            "size": len(manifest), "annotations": annotations,
        }],
    }  # fmt: skip
    blobs = {f"blobs/sha256/{digest_of(data)}": data for data in (*layers, CONFIG, manifest)}
    return {**blobs, "oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": as_json(index)}


NAMED: dict[str, Any] = {"org.opencontainers.image.ref.name": "team/app:1"}


def check(store: ImageStore, name: str = "team/app:1") -> None:
    image = store.resolve(name)
    assert image.config_digest == f"sha256:{digest_of(CONFIG)}", "an image keeps its id"
    assert image.config == json.loads(CONFIG)
    paths = unpack_layers(store.root, store.layer_sources(image))
    assert [os.listdir(path) for path in paths] == [["a"], ["b"]]


def unchanged(store: ImageStore) -> bool:
    return (
        not store.names()
        and not os.listdir(f"{store.root}/tmp")
        and not os.listdir(f"{store.root}/images/blobs/sha256")
    )


@pytest.mark.parametrize("files", [docker_archive(), oci_archive(**NAMED)], ids=["docker", "oci"])
@pytest.mark.parametrize("prefix", ["", "./"])
def test_archives_load_plain_compressed_from_files_and_directories(tmp_path, store, files, prefix):
    data = tar_of({prefix + name: content for name, content in files.items()}).getvalue()
    (loaded,) = load(store, data)
    assert loaded.names == ("docker.io/team/app:1",)
    check(store)
    (tmp_path / "file.tar.gz").write_bytes(gzip.compress(data))
    other = ImageStore(str(tmp_path / "other"))
    archives.load(Home(other.root), str(tmp_path / "file.tar.gz"))
    check(other)
    for name, content in files.items():
        (tmp_path / "directory" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "directory" / name).write_bytes(content)
    third = ImageStore(str(tmp_path / "third"))
    archives.load(Home(third.root), str(tmp_path / "directory"))
    check(third)


def test_old_docker_save_with_links_between_layers(store):
    """Docker 1.10 to 24: a directory a layer, and a symlink where two are the same."""
    config = {**json.loads(CONFIG), "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest_of(LAYERS[0])}"] * 2}}
    data = as_json(config)
    manifest = [{"Config": "c.json", "RepoTags": ["app:old"], "Layers": ["one/layer.tar", "two/layer.tar"]}]
    file = tar(
        [
            *(entry(f"{name}/VERSION", content=b"1.0") for name in ("one", "two")),
            *(entry(f"{name}/json", content=b"{}") for name in ("one", "two")),
            entry("one/layer.tar", content=LAYERS[0]),
            symlink("two/layer.tar", "../one/layer.tar"),
            entry("c.json", content=data),
            entry("manifest.json", content=as_json(manifest)),
        ]
    )
    (loaded,) = load(store, file.getvalue())
    assert loaded.names == ("docker.io/library/app:old",)
    assert store.resolve("app:old").config == config


@pytest.mark.parametrize("suffix", ["gzip", "zstd"])
def test_compressed_layers(store, suffix):
    from minibox.image.layer.compression import compress

    layers = []
    for layer in LAYERS:
        file = io.BytesIO()
        with compress(file, suffix) as out:
            out.write(layer)
        layers.append(file.getvalue())
    load(store, tar_of(oci_archive(layers, f"+{suffix}", **NAMED)).getvalue())
    check(store)
    other = {f"{number}.tar.{suffix}": layer for number, layer in enumerate(layers)}
    files = {**docker_archive(Layers=list(other), RepoTags=["other:1"]), **other}
    load(store, tar_of(files).getvalue())
    check(store, "other:1")


@pytest.mark.parametrize(
    ("annotations", "names"),
    [
        (NAMED, ("docker.io/team/app:1",)),
        ({"org.opencontainers.image.ref.name": "latest", "io.containerd.image.name": "docker.io/x/y:z"}, ("docker.io/x/y:z",)),
        ({"org.opencontainers.image.ref.name": "alpine"}, ("docker.io/library/alpine:latest",)),
        ({"org.opencontainers.image.ref.name": "latest"}, ()),
        ({"org.opencontainers.image.ref.name": "v1.2"}, ()),
        ({}, ()),
    ],
)  # fmt: skip
def test_names_of_an_oci_layout(store, annotations, names):
    (loaded,) = load(store, tar_of(oci_archive(**annotations)).getvalue())
    assert loaded.names == store.names() == names
    assert store.resolve(loaded.image_id[7:19]).config == json.loads(CONFIG)


def test_several_names_and_images(store):
    load(store, tar_of(docker_archive(RepoTags=["app:1", "app:2", "app:1"])).getvalue())
    assert store.names() == ("docker.io/library/app:1", "docker.io/library/app:2")
    load(store, tar_of(docker_archive(RepoTags=None)).getvalue())
    both = {
        **oci_archive(),
        "manifest.json": docker_archive(Config=f"blobs/sha256/{digest_of(CONFIG)}")["manifest.json"],
    }
    (loaded,) = load(store, tar_of(both).getvalue())
    assert loaded.names == ("docker.io/team/app:1",), "Docker's names where the layout has none"


def damaged(files: dict[str, bytes], name: str, data: bytes) -> dict[str, bytes]:
    return {**files, name: data}


LAYER_NAME = f"{digest_of(LAYERS[0])}.tar"
LAYER_BLOB = f"blobs/sha256/{digest_of(LAYERS[0])}"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "neither index.json nor manifest.json"),
        ({"a": b"1"}, "neither index.json nor manifest.json"),
        ({"usr/bin/sh": b"1"}, "root file system"),
        ({"manifest.json": b"{"}, "is not JSON"),
        ({"manifest.json": b"[" * 100_000}, "is not JSON"),
        ({"manifest.json": b"[]"}, "no images in it"),
        ({"manifest.json": b"[1]"}, "not a list of objects"),
        ({"manifest.json": b"[{}]"}, "lacks Config or Layers"),
        ({"manifest.json": b" " * (65 << 20)}, "larger than"),
        (damaged(docker_archive(), f"{digest_of(CONFIG)}.json", b" " * (9 << 20)), "larger than"),
        (damaged(docker_archive(), LAYER_NAME, LAYERS[1]), "is damaged: its digest is"),
        (damaged(docker_archive(), LAYER_NAME, b"BZh91AY&SY" * 20), "compressed with bzip2"),
        (docker_archive(Config="absent.json"), "lacks the file 'absent.json'"),
        (docker_archive(Layers=[LAYER_NAME]), "lists 1 layers of"),
        (docker_archive(RepoTags=["UPPER/CASE"]), "an invalid name"),
        (docker_archive(RepoTags="app"), "RepoTags is not a list"),
        (damaged(oci_archive(**NAMED), LAYER_BLOB, b"other"), "is damaged: its content has the digest"),
        ({name: data for name, data in oci_archive().items() if name != LAYER_BLOB}, "lacks the file"),
        ({"index.json": b'{"manifests": 3}'}, "not a list of objects"),
        ({"index.json": b'{"manifests": [{"mediaType": "text/plain", "digest": 3}]}'}, "is not a sha256 digest"),
        ({"index.json": as_json({"manifests": [{"digest": "sha256:" + "../" * 21 + "."}]})}, "is not a sha256 digest"),
    ],
)  # fmt: skip
def test_damaged_archive_is_named_and_changes_nothing(store, files, said):
    with pytest.raises(StoreError, match=said) as caught:
        load(store, tar_of(files).getvalue())
    assert "\n" not in str(caught.value)
    assert unchanged(store)


@pytest.mark.parametrize("files", [docker_archive(), oci_archive(**NAMED)], ids=["docker", "oci"])
def test_an_image_of_another_platform_than_asked_for_is_refused(store, files):
    data = tar_of(files).getvalue()
    with pytest.raises(StoreError, match="the archive has no image for linux/s390x") as caught:
        archives.load(Home(store.root), io.BytesIO(data), platform="s390x")
    assert caught.value.hint == "it has linux/amd64"
    assert unchanged(store)
    archives.load(Home(store.root), io.BytesIO(data), platform="linux/amd64")
    check(store)
    with pytest.raises(ImageNotFound, match="is for linux/amd64, not linux/s390x"):
        archives.save(Home(store.root), ["team/app:1"], io.BytesIO(), platform="s390x")


def test_layer_that_is_no_layer_gets_no_name(store):
    """Its digest is right: what is wrong shows when it is unpacked, which is before the image has its name."""
    bad = b"no tar at all" * 100
    config = {**json.loads(CONFIG), "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest_of(bad)}"]}}
    files = {"c.json": as_json(config), "l.tar": bad}
    manifest = [{"Config": "c.json", "RepoTags": ["app"], "Layers": ["l.tar"]}]
    with pytest.raises(StoreError, match="not a valid tar archive"):
        load(store, tar_of({**files, "manifest.json": as_json(manifest)}).getvalue())
    assert store.names() == ()


@pytest.mark.parametrize("cut", [100, 600, 3000, 5000])
def test_archive_that_is_cut_short(store, cut):
    with pytest.raises(StoreError):
        load(store, tar_of(docker_archive()).getvalue()[:cut])
    assert unchanged(store)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5)
    | st.sampled_from(["blobs/sha256/a", f"sha256:{digest_of(CONFIG)}", "application/vnd.oci.image.manifest.v1+json"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["manifests", "mediaType", "digest", "config", "layers", "Config", "RepoTags",
                                       "Layers", "rootfs", "diff_ids", "annotations", "platform"]), inner, max_size=5),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["index.json", "manifest.json"]), JSON)
def test_any_json_is_loaded_or_refused(store, name, value):
    try:
        load(store, tar_of({**oci_archive(), name: as_json(value)}).getvalue())
    except StoreError as error:
        assert "\n" not in str(error)


# ---- save --------------------------------------------------------------------------------------


@pytest.fixture
def saved_store(store):
    add_image(store.layout, "app:1", [io.BytesIO(layer) for layer in LAYERS], {"Cmd": ["/a"]})
    add_image(store.layout, "app:2", [io.BytesIO(LAYERS[0])], {"Cmd": ["/b"]})
    store.layout.set_name("localhost:5000/same:1", store.layout.descriptors()[0])
    return store


def save(store: ImageStore, *names: str, **options: str) -> bytes:
    file = io.BytesIO()
    archives.save(Home(store.root), names, file, **options)
    return file.getvalue()


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_saved_images_load_as_they_were(saved_store, tmp_path, form):
    data = save(saved_store, "app:1", "localhost:5000/same:1", "app:2", form=form)
    assert data == save(saved_store, "app:1", "localhost:5000/same:1", "app:2", form=form), "the same each time"
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = archive.getnames()
    assert len(names) == len(set(names)), "layers that images share are there once"
    assert ("manifest.json" in names) == (form == "docker-archive")
    other = ImageStore(str(tmp_path / "other"))
    loaded = load(other, data)
    assert [image.names for image in loaded] == [
        ("docker.io/library/app:1", "localhost:5000/same:1"), ("docker.io/library/app:2",),
    ]  # fmt: skip
    for name in ("app:1", "app:2"):
        before, after = saved_store.resolve(name), other.resolve(name)
        assert (before.digest, before.config_digest) == (after.digest, after.config_digest)


def test_as_many_images_as_are_saved_are_loaded(store, tmp_path):
    """More than there may be descriptors, too."""
    count, files, items = 300, dict[str, bytes](), []
    for number in range(count):
        layer = tar_of({"number": str(number).encode()}).getvalue()
        rootfs = {"type": "layers", "diff_ids": [f"sha256:{digest_of(layer)}"]}
        config = as_json({"architecture": "amd64", "os": "linux", "rootfs": rootfs})
        files |= {f"{number}.json": config, f"{number}.tar": layer}
        items.append({"Config": f"{number}.json", "RepoTags": [f"many:{number}"], "Layers": [f"{number}.tar"]})
    load(store, tar_of({**files, "manifest.json": as_json(items)}).getvalue())
    data = save(store, "many")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        loaded = load(ImageStore(str(tmp_path / "other")), data)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(loaded) == count
    assert os.listdir(tmp_path / "other/tmp") == []


def test_no_more_is_saved_than_is_loaded(saved_store, store, monkeypatch):
    monkeypatch.setattr(archive_save, "FILES_MAX", 5)
    monkeypatch.setattr(reader, "FILES_MAX", 5)
    with pytest.raises(StoreError, match="too many files to load it again"):
        save(saved_store, "app:1", "app:2")
    with pytest.raises(StoreError, match="more than 5 files: it is not an archive of images"):
        load(store, tar_of({f"{number}": b"" for number in range(6)}).getvalue())


def test_name_without_a_tag_means_all_tags_and_an_id_has_none(saved_store, tmp_path):
    with tarfile.open(fileobj=io.BytesIO(save(saved_store, "app"))) as archive:
        manifest = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert [item["RepoTags"] for item in manifest] == [["app:1"], ["app:2"]]
    data = save(saved_store, saved_store.resolve("app:2").config_digest[7:19])
    (loaded,) = load(ImageStore(str(tmp_path / "other")), data)
    assert loaded.names == ()


def test_what_cannot_be_saved(saved_store):
    with pytest.raises(ImageNotFound):
        save(saved_store, "app:1", "absent:1")
    blob = Path(saved_store.layout.blob_path(f"sha256:{digest_of(LAYERS[0])}"))
    blob.write_bytes(LAYERS[1])
    with pytest.raises(StoreError, match="is damaged: its content has another digest"):
        save(saved_store, "app:1")
    blob.unlink()
    with pytest.raises(StoreError, match=r"read blob sha256:.*No such file") as caught:
        save(saved_store, "app:1")
    assert "load the image again" in (caught.value.hint or "")


def test_an_archive_that_is_not_written_since_a_blob_can_not_be_read_says_so(saved_store, tmp_path):
    blob = Path(saved_store.layout.blob_path(f"sha256:{digest_of(LAYERS[0])}"))
    blob.unlink()
    for make in (os.mkdir, os.mkfifo):
        make(blob)
        with pytest.raises(StoreError, match=f"read blob sha256:{digest_of(LAYERS[0])}: "):
            save(saved_store, "app:1")
        (os.rmdir if blob.is_dir() else os.unlink)(blob)
    with pytest.raises(StoreError, match="read /proc/self/mem: Input/output error"):
        add_image(saved_store.layout, "app:3", ["/proc/self/mem"], {})


def test_a_blob_is_not_blamed_for_what_goes_into_it(saved_store):
    with pytest.raises(StoreError, match="^read etc/x: Input/output error"), saved_store.layout.new_blob():
        raise OSError(errno.EIO, os.strerror(errno.EIO), "etc/x")
    with (
        pytest.raises(StoreError, match=f"^write {saved_store.root}/tmp/.*: No space left"),
        saved_store.layout.new_blob(),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# ---- import --------------------------------------------------------------------------------------


def test_import_with_changes_a_message_and_a_platform(store):
    made = archives.import_tar(Home(store.root), tar_of({"a": b"1"}), "mine", platform="linux/arm64", changes=['CMD ["/a"]', "ENV A=$PATH"], message="by hand")  # fmt: skip
    image = store.resolve(made.config_digest[7:])
    assert image.config["architecture"] == "arm64"
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert image.config["config"] == {"Cmd": ["/a"], "Env": [f"PATH={path}", f"A={path}"]}
    assert [step["comment"] for step in image.config["history"]] == ["by hand"]
    assert image.config["created"].endswith("Z")


def test_import_without_a_name(store):
    made = archives.import_tar(Home(store.root), tar_of({"a": b"1"}), "")
    assert store.names() == ()
    assert store.resolve(made.config_digest).digest == made.digest
