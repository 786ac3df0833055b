"""One project built by minibox, as root and as an ordinary user, by Docker and by buildah: what is compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.engines import Client, Docker
from tests.interop.test_build_docker import KEYWORDS
from tests.projects.project import Buildah

TIMEOUT_S = 1800
NETWORK = ("--network", "host")
FORMAT = ("--no-trunc", "--format", "{{.CreatedBy}}")


@dataclass(frozen=True)
class Built:
    """What a builder made: an archive of the files, what `inspect` prints, and the texts of the history, the last first."""

    files: Path
    config: str
    history: list[str]


class WithMinibox:
    """`minibox build` with a store of its own; ``bases`` are archives of the images that projects start from."""

    def __init__(self, command: Client, place: Path, bases: Sequence[Path]) -> None:
        self._command, self._place = command, place
        for archive in bases:
            command("load", "-i", archive, timeout_s=TIMEOUT_S)

    def build(self, name: str, words: Sequence[object]) -> Built:
        files = self._place / f"{name}.tar"
        for output in (("-t", name), ("-o", f"type=tar,dest={files}")):
            self._command("build", *output, *NETWORK, *words, timeout_s=TIMEOUT_S)
        history = self._command.out("history", *FORMAT, name).splitlines()
        return Built(files, self._command.out("image", "inspect", name), history)


class WithDocker:
    """BuildKit in a dockerd without a network of its own."""

    def __init__(self, engine: Docker, place: Path, bases: Sequence[Path]) -> None:
        self._engine, self._place = engine, place
        for archive in bases:
            engine("load", "-i", archive, timeout_s=TIMEOUT_S)

    def build(self, name: str, words: Sequence[object]) -> Built:
        files = self._place / f"{name}.tar"
        for output in (("-t", name), ("-o", f"type=tar,dest={files}")):
            self._engine("build", *output, *NETWORK, *words, timeout_s=TIMEOUT_S)
        return Built(files, self._engine.out("inspect", name), self._engine.out("history", *FORMAT, name).splitlines())


class WithBuildah:
    """buildah with ``--layers``: so its history has a line for each of the Dockerfile's."""

    def __init__(self, buildah: Buildah, place: Path, bases: Sequence[Path]) -> None:
        self._buildah, self._place = buildah, place
        for archive in bases:
            buildah("pull", f"docker-archive:{archive}", timeout_s=TIMEOUT_S)

    def build(self, name: str, words: Sequence[object]) -> Built:
        files = self._place / f"{name}.tar"
        self._buildah.build(name, "--layers", *words)
        self._buildah.export(name, files)
        document = json.loads(self._buildah.out("inspect", "--type", "image", name))
        history = [of_buildah(each.get("created_by", "")) for each in document["OCIv1"]["history"]]
        return Built(files, self._buildah.inspect(name), history[::-1])


def of_buildah(text: str) -> str:
    """A text of the history as BuildKit writes it: buildah writes them as Docker's builder before BuildKit did."""
    text = text.removeprefix("/bin/sh -c #(nop) ")
    return f"RUN {text}" if text.startswith(("/bin/sh ", "|")) else text


def lines_of(history: Sequence[str]) -> list[str]:
    """The kinds of the Dockerfile's lines in it. ONBUILD is in buildah's alone, and in no image that has its lines carried out."""
    return [word for text in history if (word := text.partition(" ")[0]) in KEYWORDS]
