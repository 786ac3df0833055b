"""The store's fast answers: right after every change, and never wrong for a damaged cache."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minibox.errors import ImageNotFound, InvalidReference, StoreError
from minibox.image import reference
from minibox.image.archive.importer import add_image, import_tar
from minibox.image.store import ImageStore
from tests.images import lowers
from tests.stores import remove_name
from tests.unit.layers import tar_of

HOT_PATH_FORBIDS = {"json", "re", "hashlib", "tarfile", "enum", "typing", "dataclasses", "pathlib", "contextlib"}


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(str(tmp_path / "root"))


def cache_file(store: ImageStore) -> Path:
    return next(Path(store.root, "cache/resolve").iterdir())


def test_image_is_found_by_short_and_full_name_and_digest(store):
    made = import_tar(store.layout, tar_of({"a": b"1"}), "app:1", {"Cmd": ["/a"]})
    for name in ("app:1", "library/app:1", "docker.io/library/app:1", "docker.io/app:1"):
        for _ in range(2):
            assert store.resolve(name) == made
    assert store.resolve(f"app@{made.digest}").digest == made.digest
    assert store.resolve(made.digest).digest == made.digest
    assert made.config["config"]["Cmd"] == ["/a"]
    assert store.names() == ("docker.io/library/app:1",)


def test_resolve_sees_that_a_name_moved(store):
    first = import_tar(store.layout, tar_of({"a": b"1"}), "app")
    assert store.resolve("app") == first
    second = import_tar(store.layout, tar_of({"a": b"2"}), "app")
    assert store.resolve("app") == second != first
    remove_name(store.layout, "docker.io/library/app:latest")
    with pytest.raises(ImageNotFound):
        store.resolve("app")


def test_unknown_image_says_what_is_there_and_how_to_bring_it(store):
    import_tar(store.layout, tar_of({"a": b"1"}), "app")
    with pytest.raises(ImageNotFound) as caught:
        store.resolve("apq")
    assert "app:latest" in (caught.value.hint or "")
    assert "minibox pull apq:latest" in (caught.value.hint or "")
    with pytest.raises(InvalidReference):
        store.resolve("a//b")
    with pytest.raises(InvalidReference):
        store.resolve("a%b\0c")


def test_damaged_cache_is_a_miss(store):
    made = import_tar(store.layout, tar_of({"a": b"1"}), "app")
    store.resolve("app")
    whole = cache_file(store).read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x55
        cache_file(store).write_bytes(damaged)
        assert store.resolve("app") == made
    for damaged_file in (b"", whole[:7], whole[:8], whole[:-1], whole + b"x", os.urandom(300), b"\0" * 64):
        cache_file(store).write_bytes(damaged_file)
        assert store.resolve("app") == made
    assert cache_file(store).read_bytes() == whole, "a miss must be written anew"


def test_cached_answer_is_used(store):
    """A cache that never hits would pass every other test: break the blob, and only the cache can answer."""
    made = import_tar(store.layout, tar_of({"a": b"1"}), "app")
    store.resolve("app")
    Path(store.layout.blob_path(made.digest)).write_bytes(b"{}")
    assert store.resolve("app") == made
    with pytest.raises(StoreError, match="damaged"):
        store.resolve("library/app")


def test_hot_path_imports_nothing_heavy(store):
    image = import_tar(store.layout, tar_of({"a": b"1"}), "app")
    lowers(store, store.resolve("app"))
    code = f"""
import sys
before = set(sys.modules)
from minibox.image.store import ImageStore
from minibox.storage.overlay import Overlay
store = ImageStore({store.root!r})
image = store.resolve("app")
overlay = Overlay({store.root!r})
assert overlay.is_unpacked(image.chain_ids)
overlay.prepare("c1", image.chain_ids)
overlay.remove("c1")
print(image.digest, *sorted(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, '.'); {code}"],
                          capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])  # fmt: skip
    digest, *modules = done.stdout.split()
    assert digest == image.digest
    assert not HOT_PATH_FORBIDS & set(modules)


@pytest.mark.parametrize("index", [b"", b"[]", b"{", b'{"manifests": 3}', b'{"manifests": [{}]}', b"\xff\xfe"])
def test_damaged_index_is_an_error(store, index):
    import_tar(store.layout, tar_of({"a": b"1"}), "app")
    Path(store.root, "images/index.json").write_bytes(index)
    with pytest.raises((StoreError, ImageNotFound)):
        store.resolve("app")


def test_same_content_same_digest(tmp_path):
    digests = set()
    for number in range(2):
        store = ImageStore(str(tmp_path / str(number)))
        digests.add(add_image(store.layout, "app", [tar_of({"a": b"1"}), tar_of({"b": b"2"})], {"Cmd": ["x"]}).digest)
    assert len(digests) == 1


def test_import_of_what_is_no_tar_is_an_error_and_leaves_nothing(store, tmp_path):
    for data in (b"no tar at all" * 100, b"", gzip.compress(b"no tar at all" * 100)):
        (tmp_path / "x.tar").write_bytes(data)
        with pytest.raises(StoreError, match=r"import .*x\.tar: not a valid tar archive"):
            import_tar(store.layout, str(tmp_path / "x.tar"), "app")
    with pytest.raises(StoreError, match="No such file"):
        import_tar(store.layout, str(tmp_path / "absent.tar"), "app")
    assert store.names() == ()
    assert not os.listdir(f"{store.root}/tmp")
    assert not os.listdir(f"{store.root}/images/blobs/sha256")


def test_a_digest_that_is_a_path_is_refused(store):
    with pytest.raises(StoreError, match="not a sha256 digest"):
        store.layout.blob_path("sha256:../../../etc/passwd")


# ---- by id --------------------------------------------------------------------------------------


def test_image_is_found_by_its_id_and_the_beginning_of_it(store):
    made = import_tar(store.layout, tar_of({"a": b"1"}), "app:1")
    image_id = made.config_digest
    for text in (image_id, image_id[7:], image_id[7:19], image_id[7:11], image_id[:11]):
        for _ in range(2):  # the second time out of the cache
            found = store.resolve(text)
            assert (found.digest, found.config_digest, found.reference) == (made.digest, image_id, text)
    for text in (image_id[7:10], "f" * 64, "0" * 12):
        with pytest.raises(ImageNotFound):
            store.resolve(text)


def test_name_goes_before_id(store):
    made = import_tar(store.layout, tar_of({"a": b"1"}), "app:1")
    named = import_tar(store.layout, tar_of({"a": b"2"}), made.config_digest[7:13])
    assert store.resolve(made.config_digest[7:13]) == named
    assert store.resolve(made.config_digest[7:14]).digest == made.digest


def test_beginning_of_several_ids_is_refused(store):
    store.layout.create()
    for end in "12":
        manifest = {"config": {"digest": "sha256:abcd" + end * 60}}
        descriptor = store.layout.write_json(manifest, "application/vnd.oci.image.manifest.v1+json")
        store.layout.set_name(f"app:{end}", descriptor)
    with pytest.raises(InvalidReference, match="'abcd' is the beginning of 2 image ids"):
        store.resolve("abcd")
    with pytest.raises(StoreError, match="read blob sha256:abcd2"):
        store.resolve("abcd2")


def test_damaged_image_costs_no_other_its_id(store):
    made = import_tar(store.layout, tar_of({"a": b"1"}), "app:1")
    other = import_tar(store.layout, tar_of({"a": b"2"}), "app:2")
    Path(store.layout.blob_path(other.digest)).write_bytes(b"{}")
    assert store.resolve(made.config_digest[7:15]).digest == made.digest


def test_a_name_is_parsed_once_and_not_at_all_if_its_image_is_cached(tmp_path, monkeypatch):
    store = ImageStore(str(tmp_path))
    add_image(store.layout, "app:1", [tar_of({"a": b"1"})])
    parsed: list[str] = []
    real = reference.parse

    def parse(text: str) -> reference.Reference:
        parsed.append(text)
        return real(text)

    monkeypatch.setattr(reference, "parse", parse)
    store.resolve("app:1")
    store.resolve("app:1")
    assert parsed == ["app:1"]
    with pytest.raises(ImageNotFound):
        store.resolve("other:1")
    assert parsed.count("other:1") == 1
