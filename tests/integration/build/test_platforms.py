"""`build --platform`: what the result says that it is for, and several at once."""

from __future__ import annotations

import json
import struct
from typing import Any

from minibox.image.layout.layout import ref_name
from minibox.image.store import ImageStore
from tests.integration.build.conftest import Builder


def descriptor(builder: Builder, name: str = "built") -> Any:
    """The entry of a name in the store's index."""
    layout = ImageStore(str(builder.box.directory / "root")).layout
    return next(each for each in layout.descriptors() if ref_name(each).endswith(f"/{name}:latest"))


def platform(builder: Builder) -> tuple[str, ...]:
    image = builder.image()
    return image["Os"], image["Architecture"], image.get("Variant", "")


def test_the_result_is_for_the_platform_whatever_the_base_is_for(builder: Builder) -> None:
    text = "FROM --platform=$BUILDPLATFORM base\nARG TARGETARCH\nRUN echo $TARGETARCH > /arch\n"
    builder.ok(text, "--network", "none", "--platform", "linux/arm64")
    assert platform(builder) == ("linux", "arm64", "")
    assert descriptor(builder)["platform"] == {"os": "linux", "architecture": "arm64"}
    builder.ok(text, "--network", "none", "--platform", "linux/arm/v6")
    assert platform(builder) == ("linux", "arm", "v6")
    assert descriptor(builder)["platform"] == {"os": "linux", "architecture": "arm", "variant": "v6"}


def test_local_is_this_machine(builder: Builder) -> None:
    builder.ok("FROM base\n")
    wanted = platform(builder)
    builder.ok("FROM base\n", "--platform", "local")
    assert platform(builder) == wanted


def test_from_scratch_is_for_the_platform(builder: Builder) -> None:
    builder.file("a")
    builder.ok("FROM scratch\nCOPY a /\n", "--platform", "linux/riscv64")
    assert platform(builder) == ("linux", "riscv64", "")


def test_a_base_for_another_platform_is_refused(builder: Builder) -> None:
    said = builder.refused("FROM base\nRUN true\n", "--platform", "linux/s390x", "--network", "none")
    assert "Dockerfile:1" in said and "linux/s390x" in said


def test_a_command_for_another_machine_names_what_is_missing(builder: Builder) -> None:
    head = struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, 0x400000, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    loaded = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 200, 200, 4096)
    builder.file("sh", b"\x7fELF\x02\x01\x01" + bytes(9) + head + loaded + bytes(100), 0o755)  # for arm64
    said = builder.refused(
        "FROM scratch\nCOPY sh /bin/sh\nRUN true\n", "--platform", "linux/arm64", "--network", "none"
    )
    assert "Dockerfile:3" in said and "it is a program for aarch64" in said and "binfmt" in said


BOTH = ("--network", "none", "--platform", "linux/amd64,linux/arm64")
TEXT = """\
FROM --platform=$BUILDPLATFORM base AS maker
ARG TARGETARCH
RUN echo $TARGETARCH > /arch
FROM scratch
COPY --from=maker /arch /arch
"""


def test_several_platforms_make_an_index(builder: Builder) -> None:
    lines = builder.ok(TEXT, *BOTH)
    assert any("linux/arm64 maker" in line for line in lines), lines
    root = ImageStore(str(builder.box.directory / "root")).layout
    entry = descriptor(builder)
    index = root.read_json(entry["digest"])
    assert [each["platform"]["architecture"] for each in index["manifests"]] == ["amd64", "arm64"]
    assert index["manifests"][0]["digest"] != index["manifests"][1]["digest"]
    builder.box.ok("tag", "built", "kept")
    assert len(builder.box.ok("image", "ls", "-a", "-q").split()) >= 2
    assert "<none>" not in builder.box.ok("image", "ls", "-a")
    builder.box.ok("image", "prune", "--force")  # both stay
    builder.ok("FROM built\n", "-t", "again", "--platform", "linux/arm64")
    assert builder.box.ok("image", "diff", "again", "again") == ""


def test_an_index_without_this_machines_platform(builder: Builder) -> None:
    builder.file("a")
    builder.ok("FROM scratch\nCOPY a /a\n", "--platform", "linux/s390x", "--platform", "linux/riscv64")
    assert "damaged" not in builder.box.ok("image", "ls")
    assert platform(builder) == ("linux", "s390x", "")
    said = builder.box("run", "--rm", "--platform", "linux/amd64", "--pull", "never", "built", "/a")
    assert said.returncode == 125 and "it has linux/s390x, linux/riscv64" in said.stderr, said
    builder.box.ok("rmi", "built")
    assert "built" not in builder.box.ok("image", "ls")


def test_the_files_of_several_platforms(builder: Builder) -> None:
    out = builder.context / "out"
    builder.ok(TEXT, *BOTH, "-o", str(out))
    found = {each.parent.name: each.read_text() for each in out.glob("*/arch")}
    assert found == {"linux_amd64": "amd64\n", "linux_arm64": "arm64\n"}


def test_what_several_platforms_can_not_have(builder: Builder) -> None:
    for words, says in (
        (("-o", "type=docker,dest=x"), "type=docker is not supported for several platforms"),
        (("-f", "-"), "standard input can be read for one platform only"),
        (("--platform", "linux/no/such/thing"), "invalid platform"),
    ):
        done = builder.run(TEXT, *BOTH, *words)
        assert done.returncode == 125 and says in done.stderr, done


def test_a_failure_on_one_platform_names_nothing(builder: Builder) -> None:
    text = TEXT.replace("> /arch", "> /arch; test $TARGETARCH = amd64")
    assert "RUN" in builder.refused(text, *BOTH)
    assert builder.box("image", "inspect", "built").returncode != 0
    metadata = builder.context / "metadata"
    builder.ok(TEXT, *BOTH, "--metadata-file", str(metadata))
    assert json.loads(metadata.read_text())["containerimage.digest"] == descriptor(builder)["digest"]
