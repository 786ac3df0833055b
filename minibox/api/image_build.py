"""`minibox.ImageBuild`: build an image from a Dockerfile, and see how it goes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import TypedDict, Unpack

from minibox.api.arguments import BUILD, checked
from minibox.api.ownership import Owned
from minibox.api.place import Place, Places, place
from minibox.build.events import Event, ImageMade
from minibox.build.options import BuildOptions
from minibox.build.platforms import new_build
from minibox.build.words import source_date_epoch
from minibox.errors import MiniboxError


class DockerfileKeywords(TypedDict, total=False):
    """The keywords of a build: those of `docker build`.

    Attributes:
        file: the Dockerfile; the default is the directory's Dockerfile or Containerfile.
        tags: names for the image.
        secrets: the files of secrets, by their ids.
        cache_from, cache_to: caches of other machines, as for the options of that name.
    """

    file: str | os.PathLike[str]
    tags: Sequence[str]
    target: str
    build_args: Mapping[str, str]
    contexts: Mapping[str, str | os.PathLike[str]]
    secrets: Mapping[str, str | os.PathLike[str]]
    cache_from: Sequence[str]
    cache_to: Sequence[str]
    no_cache: bool
    pull: bool
    platform: str
    network: str
    add_host: Sequence[str]
    source_date_epoch: int


class BuildKeywords(DockerfileKeywords, Places, total=False):
    """The same, with labels for the image and the place of minibox's state."""

    labels: Mapping[str, str]


class ImageBuild(Owned):
    """A build in a thread of its own. Iterate over it for the events; `result` waits for the end.

        for event in ImageBuild("src", tags=["web"]):
            print(event)

    Attributes:
        where: where minibox keeps its state.
    """

    @checked(BUILD)
    def __init__(self, path: str | os.PathLike[str], **options: Unpack[BuildKeywords]) -> None:
        """Start the build of the directory ``path``.

        Raises:
            UsageError: an option is invalid.
        """
        self.where: Place = place(options)
        self._events: SimpleQueue[Event | None] = SimpleQueue()
        self._made: ImageMade | None = None
        self._error: BaseException | None = None
        self._build = new_build(
            self.where.home,
            _options(path, options),
            storage_driver=self.where.storage_driver,
            on_event=self._events.put,
        )
        self._thread = Thread(target=self._run, name="minibox build", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Event]:
        """Yield the events up to the end; see `minibox.build.events`.

        Raises:
            DockerfileError, LineFailed, MiniboxError: the build has failed.
        """
        while (event := self._events.get()) is not None:
            yield event
        self._events.put(None)  # for whoever iterates again
        if self._error:
            raise self._error

    def result(self) -> str:
        """Wait for the end, and return the image's id.

        Raises:
            DockerfileError, LineFailed, MiniboxError: the build has failed.
        """
        self._thread.join()
        if self._error:
            raise self._error
        assert self._made
        return self._made.id

    def cancel(self) -> None:
        """End the build: its containers are killed. `result` raises an error then."""
        self._build.cancel()

    def _run(self) -> None:
        try:
            result = self._build.run()
            if not result.made:
                raise MiniboxError("the build has made no image")
            self._made = ImageMade(result.made.id, result.made.digest, result.names)
            self._events.put(self._made)
        except BaseException as error:
            self._error = error
        finally:
            self._events.put(None)


def _options(path: str | os.PathLike[str], given: BuildKeywords) -> BuildOptions:
    arguments = tuple(given.get("build_args", {}).items())
    epoch = given.get("source_date_epoch")
    return BuildOptions(
        os.fspath(path),
        file=os.fspath(given.get("file", "")),
        tags=tuple(given.get("tags", ())),
        target=given.get("target", ""),
        build_args=arguments,
        contexts=tuple((name, os.fspath(where)) for name, where in given.get("contexts", {}).items()),
        labels=tuple(given.get("labels", {}).items()),
        secrets=tuple((name, "src", os.fspath(file)) for name, file in given.get("secrets", {}).items()),
        cache_from=tuple(given.get("cache_from", ())),
        cache_to=tuple(given.get("cache_to", ())),
        no_cache=given.get("no_cache", False),
        pull=given.get("pull", False),
        platform=given.get("platform", ""),
        network=given.get("network", "default"),
        add_host=tuple(given.get("add_host", ())),
        source_date_epoch=source_date_epoch(dict(arguments), os.environ) if epoch is None else epoch,
    )
