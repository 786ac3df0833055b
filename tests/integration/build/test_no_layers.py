"""Images that are nothing but a config: `FROM scratch` without a line that writes a file."""

from __future__ import annotations

import json
import tarfile

from tests.integration.build.conftest import Builder

TEXT = 'FROM scratch\nENV A=1\nLABEL kind=config\nCMD ["/none"]\n'


def test_a_config_alone_is_an_image(builder: Builder) -> None:
    builder.ok(TEXT)
    image = builder.image()
    assert image["RootFS"] == {"Type": "layers", "Layers": []}
    assert image["Config"]["Labels"] == {"kind": "config"} and image["Size"] == 0
    assert "built" in builder.box.ok("image", "ls")
    assert "LABEL kind=config" in builder.box.ok("history", "--no-trunc", "built")


def test_it_can_not_run(builder: Builder) -> None:
    builder.ok(TEXT)
    for words in (("run", "--rm", "built", "true"), ("run", "built"), ("create", "built", "true")):
        said = builder.box(*words)
        assert said.returncode == 127, said
        assert "has no layers: there is no file in it to run" in said.stderr
    assert builder.box.ok("ps", "-a", "-q") == ""


def test_other_builds_begin_with_it_and_copy_from_it(builder: Builder) -> None:
    builder.ok(TEXT)
    builder.box.ok("tag", "built", "config")
    builder.file("a", "text")
    builder.ok("FROM config\nCOPY a /a\n")
    assert builder.config()["Labels"] == {"kind": "config"} and len(builder.image()["RootFS"]["Layers"]) == 1
    assert "Dockerfile:2" in builder.refused("FROM base\nCOPY --from=config /a /\n")
    assert builder.box.ok("image", "diff", "config", "built") == "A /a"


def test_it_is_saved_and_loaded(builder: Builder) -> None:
    builder.ok(TEXT)
    before = builder.image()
    archive = builder.context / "saved.tar"
    builder.box.ok("save", "-o", str(archive), "built")
    with tarfile.open(archive) as tar:
        file = tar.extractfile("manifest.json")
        assert file and json.load(file)[0]["Layers"] == []
    builder.box.ok("rmi", "built")
    builder.box.ok("load", "-i", str(archive))
    assert builder.image()["Id"] == before["Id"] and builder.config() == before["Config"]
