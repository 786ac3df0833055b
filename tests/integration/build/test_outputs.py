"""Where the result goes: archives, registries, directories, several of them at once, and what is written about it."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.container_box import Box
from tests.integration.build.conftest import Builder
from tests.integration.build.test_platforms import BOTH, TEXT, descriptor
from tests.registries import Answer, FakeRegistry

ONE = "FROM scratch\nCOPY a /a\n"


@pytest.fixture
def builder(box: Box, state: Path) -> Builder:
    context = state / "context"
    context.mkdir()
    made = Builder(box, context)
    made.file("a", "text\n")
    return made


def members(archive: Path) -> dict[str, Any]:
    """The JSON files of an archive, by name."""
    with tarfile.open(archive) as tar:
        return {
            each.name: json.loads(data)
            for each in tar
            if each.isfile() and (file := tar.extractfile(each)) and (data := file.read())[:1] in (b"{", b"[")
        }


def names_in(archive: Path) -> list[str]:
    return [each["annotations"]["io.containerd.image.name"] for each in members(archive)["index.json"]["manifests"]]


# ---- archives of one image -------------------------------------------------------------------------


def test_dockers_archive_has_its_files_and_can_be_loaded(builder: Builder) -> None:
    archive = builder.context / "image.tar"
    builder.ok(ONE, "-t", "second:2", "-o", f"type=docker,dest={archive}")
    found = members(archive)
    assert found["manifest.json"][0]["RepoTags"] == ["built:latest", "second:2"]
    assert set(found["repositories"]) == {"built", "second"}
    image_id = builder.image()["Id"]
    builder.box.ok("rmi", "built", "second:2")
    assert builder.box.ok("load", "-i", str(archive)).splitlines() == [
        "Loaded image: built:latest",
        "Loaded image: second:2",
    ]
    assert builder.image()["Id"] == image_id


def test_an_archive_of_a_nameless_image(builder: Builder) -> None:
    builder.file("Dockerfile", ONE)
    archive = builder.context / "image.tar"
    builder.box.ok("build", "-o", f"type=docker,dest={archive}", str(builder.context))
    assert members(archive)["manifest.json"][0]["RepoTags"] is None
    assert "annotations" not in members(archive)["index.json"]["manifests"][0]


def test_oci_has_no_files_of_docker(builder: Builder) -> None:
    archive = builder.context / "image.tar"
    builder.ok(ONE, "-t", "second:2", "-o", f"type=oci,dest={archive}")
    assert not {"manifest.json", "repositories"} & set(members(archive))
    assert names_in(archive) == ["docker.io/library/built:latest", "docker.io/library/second:2"]


def test_dockers_archive_goes_to_standard_output(builder: Builder) -> None:
    builder.file("Dockerfile", ONE)
    archive = builder.context / "image.tar"
    with open(archive, "wb") as file:
        done = builder.box(
            "build", "-q", "-t", "built", "-o", "type=docker,dest=-", str(builder.context), stdout=file, stderr=None,
            capture_output=False,
        )  # fmt: skip
    assert done.returncode == 0
    assert members(archive)["manifest.json"][0]["RepoTags"] == ["built:latest"]


def test_without_a_place_docker_stores_the_image_as_load_does(builder: Builder) -> None:
    for words in (["-o", "type=docker"], ["--load"], ["--load", "-o", f"{builder.context}/out"]):
        lines = builder.ok(ONE, *words)
        image_id = builder.image()["Id"]
        assert lines[-2:] == [f"image {image_id}", "named docker.io/library/built:latest"], words
        builder.box.ok("rmi", "built")
    assert (builder.context / "out/a").read_text() == "text\n"
    assert builder.ok(ONE, "-o", f"{builder.context}/again")[-1].startswith("#")  # only files: no image is made
    assert builder.box("image", "inspect", "built").returncode != 0


# ---- archives of several platforms -------------------------------------------------------------------


def test_an_archive_of_several_platforms_has_the_index(builder: Builder) -> None:
    archive = builder.context / "image.tar"
    builder.ok(TEXT, *BOTH, "-t", "second:2", "-o", f"type=oci,dest={archive}")
    found = members(archive)
    index = descriptor(builder)
    assert [each["digest"] for each in found["index.json"]["manifests"]] == 2 * [index["digest"]]
    assert names_in(archive) == ["docker.io/library/built:latest", "docker.io/library/second:2"]
    listed = found[f"blobs/sha256/{index['digest'][7:]}"]["manifests"]
    assert [each["platform"]["architecture"] for each in listed] == ["amd64", "arm64"]
    builder.box.ok("rmi", "built", "second:2")
    for platform, words in (("amd64", ()), ("arm64", ("--platform", "linux/arm64"))):
        builder.box.ok("load", *words, "-i", str(archive))
        assert builder.image()["Architecture"] == platform
        assert builder.image()["Id"] in {
            found[f"blobs/sha256/{each['digest'][7:]}"]["config"]["digest"]
            for each in listed
            if each["platform"]["architecture"] == platform
        }


def test_beside_directories_and_to_standard_output(builder: Builder) -> None:
    builder.file("Dockerfile", TEXT)
    archive, out, metadata = (builder.context / name for name in ("image.tar", "out", "metadata"))
    with open(archive, "wb") as file:
        done = builder.box(
            "build", *BOTH, "-t", "built", "-o", "type=oci,dest=-", "-o", str(out), "--metadata-file", str(metadata),
            str(builder.context), stdout=file, stderr=None, capture_output=False,
        )  # fmt: skip
    assert done.returncode == 0
    digest = json.loads(metadata.read_text())["containerimage.digest"]
    assert members(archive)["index.json"]["manifests"][0]["digest"] == digest == descriptor(builder)["digest"]
    assert {each.parent.name for each in out.glob("*/arch")} == {"linux_amd64", "linux_arm64"}


def test_the_same_input_makes_the_same_archive(builder: Builder) -> None:
    made = []
    for name in ("one", "two"):
        archive = builder.context / f"{name}.tar"
        output = f"type=oci,dest={archive},rewrite-timestamp=true"
        lines = builder.ok(TEXT, *BOTH, "--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1000000000", "-o", output)
        assert not any("rewrite-timestamp" in line for line in lines)
        made.append(archive.read_bytes())
    assert made[0] == made[1]
    with tarfile.open(builder.context / "one.tar") as tar:
        blobs = [file for each in tar if each.isfile() and (file := tar.extractfile(each))]
        layers = [tarfile.open(fileobj=each) for each in blobs if each.read(1) != b"{" and each.seek(0) == 0]
        assert {each.mtime for layer in layers for each in layer} == {1_000_000_000}


def test_rewritten_times_need_a_time(builder: Builder) -> None:
    for platforms in ((), BOTH):
        output = f"type=oci,dest={builder.context}/image.tar,rewrite-timestamp=true"
        lines = builder.ok(TEXT, "--network", "none", *platforms, "-o", output)
        assert sum("has no effect without SOURCE_DATE_EPOCH" in line for line in lines) == 1, lines
    done = builder.run(TEXT, "-o", f"type=oci,dest={builder.context}/x,rewrite-timestamp=yes")
    assert done.returncode == 125 and "rewrite-timestamp is true or false" in done.stderr


def test_an_archive_that_can_not_be_written_names_it(builder: Builder) -> None:
    for platforms in ((), BOTH):
        said = builder.refused(TEXT, "--network", "none", *platforms, "-o", "type=oci,dest=/proc/none/x.tar")
        assert "/proc/none/x.tar" in said


# ---- registries ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["--push"], ["-o", "type=registry"], ["-o", "type=image,push=true"]])
def test_all_names_are_pushed(builder: Builder, registry: FakeRegistry, words: list[str]) -> None:
    names = [f"{registry.host}/app:{tag}" for tag in ("1", "2")]
    builder.file("Dockerfile", ONE)
    done = builder.box("build", "-t", names[0], "-t", names[1], *words, str(builder.context))
    assert done.returncode == 0, done.stderr
    assert {registry.manifests[f"app/{tag}"][1] for tag in ("1", "2")} == {registry.manifests["app/1"][1]}
    assert builder.box.ok("image", "inspect", "--format", "{{.Id}}", names[1])


def test_an_output_with_a_name_pushes_that(builder: Builder, registry: FakeRegistry) -> None:
    builder.ok(ONE, "-o", f"type=registry,name={registry.host}/app:3")  # and is named `built`, which isn't pushed
    assert list(registry.manifests) == ["app/3"]
    assert "built:latest" in builder.image()["RepoTags"]


def test_an_image_without_a_name_is_refused_before_it_is_built(builder: Builder) -> None:
    builder.file("Dockerfile", "FROM base\nRUN false\n")
    for words in (["--push"], ["-o", "type=registry"]):
        done = builder.box("build", *words, str(builder.context))
        assert done.returncode == 125 and "an image without a name can't be pushed" in done.stderr, done.stderr


def test_a_registry_that_refuses_fails_the_build(builder: Builder, registry: FakeRegistry) -> None:
    registry.rule("PUT /v2/app/manifests/", Answer(403, b'{"errors":[{"code":"DENIED","message":"read only"}]}'))
    builder.file("Dockerfile", ONE)
    done = builder.box("build", "-t", f"{registry.host}/app:1", "--push", str(builder.context))
    assert done.returncode == 125 and "read only" in done.stderr
    assert builder.box.ok("image", "inspect", "--format", "{{.Id}}", f"{registry.host}/app:1")


# ---- several at once ----------------------------------------------------------------------------------


def test_the_metadata_beside_several_outputs(builder: Builder, registry: FakeRegistry) -> None:
    metadata, iid, archive, out = (builder.context / name for name in ("metadata", "iid", "image.tar", "out"))
    name = f"{registry.host}/app:1"
    words = ["-o", f"type=oci,dest={archive}", "-o", str(out), "-o", f"type=registry,name={name}"]
    builder.ok(ONE, *words, "--metadata-file", str(metadata), "--iidfile", str(iid))
    found = json.loads(metadata.read_text())
    manifest = registry.manifests["app/1"][1]
    assert found["containerimage.config.digest"] == iid.read_text() == builder.image()["Id"]
    assert found["containerimage.config.digest"] == json.loads(manifest)["config"]["digest"]
    assert found["containerimage.digest"] == members(archive)["index.json"]["manifests"][0]["digest"]
    assert found["image.name"] == f"docker.io/library/built:latest,{name}"
    assert (out / "a").read_text() == "text\n"


def test_the_metadata_of_only_files_is_empty(builder: Builder) -> None:
    metadata, out = builder.context / "metadata", builder.context / "out"
    builder.ok(ONE, "-o", str(out), "-o", f"type=tar,dest={builder.context}/out.tar", "--metadata-file", str(metadata))
    assert json.loads(metadata.read_text()) == {}
    with tarfile.open(builder.context / "out.tar") as tar:
        assert "a" in tar.getnames()
