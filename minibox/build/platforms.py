"""A build for several platforms: one after the other, and an index of their images.

A stage on another machine's image works as far as its commands run here: with binfmt_misc set up for an emulator, or
without RUN, or ``FROM --platform=$BUILDPLATFORM`` and a cross compiler.
"""

from __future__ import annotations

from minibox.build.build import FILES, Build, Result
from minibox.build.durability import sync
from minibox.build.events import LineEnded, LineOutput, LineStarted, Notice
from minibox.build.image.export import notices, parse_output, write_index_archive
from minibox.build.image.make import Made
from minibox.build.remote_cache.words import TO, parse_places
from minibox.errors import UsageError
from minibox.image.layout.layout import MEDIA_TYPE_INDEX
from minibox.image.platform import host_platform, parse_platform
from minibox.image.reference import parse as parse_reference
from minibox.image.store import ImageStore
from minibox.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO

    from minibox.base.home import Home
    from minibox.build.events import Event
    from minibox.build.options import BuildOptions
    from minibox.image.layout.layout import Layout
    from minibox.image.platform import Platform


REFUSED = {
    "docker": "type=oci,dest=FILE writes all of them; Docker's own form has no place for several",
    "tar": "type=local,dest=DIR writes a directory for each",
}


def new_build(home: Home, options: BuildOptions, **more: Any) -> Build | PlatformsBuild:
    """Return a build of the platforms in ``options``; the arguments are those of `Build`.

    Raises:
        UsageError: an option is invalid.
    """
    words = [each for each in options.platform.split(",") if each]
    platforms = tuple(dict.fromkeys(host_platform() if each == "local" else parse_platform(each) for each in words))
    if len(platforms) < 2:
        return Build(home, replace(options, platform=str(platforms[0]) if platforms else ""), **more)
    return PlatformsBuild(home, options, platforms, **more)


class PlatformsBuild:
    """A build for several platforms. `run` carries it out once.

    Attributes:
        outputs: where its result goes; () for only the store.
        names: the full names of the index.
    """

    def __init__(
        self,
        home: Home,
        options: BuildOptions,
        platforms: tuple[Platform, ...],
        *,
        storage_driver: str = "",
        on_event: Callable[[Event], None] = lambda _: None,
        stdin: BinaryIO | None = None,
    ) -> None:
        """
        Raises:
            UsageError: an option is invalid, or can't be had for several platforms.
        """
        self._home, self._platforms, self._cache_to = home, platforms, options.cache_to
        self._epoch_s = options.source_date_epoch
        self.outputs = tuple(parse_output(text) for text in options.outputs)
        for output in self.outputs:
            if output.type in REFUSED:
                name = f"--output type={output.type}"
                raise UsageError(f"{name} is not supported for several platforms", REFUSED[output.type])
        if "-" in (options.context, options.file):
            raise UsageError("standard input can be read for one platform only", "give a directory or a URL")
        names = (*options.tags, *(each.name for each in self.outputs if each.name))
        self.names = tuple(str(parse_reference(name)) for name in names)
        self._lines, self._on_event = 0, on_event
        directories = [each.destination for each in self.outputs if each.type in FILES]
        self._only_files = bool(directories) and len(directories) == len(self.outputs)
        self._builds = [
            Build(
                home,
                replace(options, platform=str(each), tags=(), outputs=self._outputs_of(each, directories)),
                storage_driver=storage_driver,
                on_event=self._teller(each),
                stdin=stdin,
                is_part=True,
            )
            for each in platforms
        ]

    def run(self) -> Result:
        """Build all platforms, and give the index of their images the names.

        Raises:
            MiniboxError: as `Build.run`; then nothing has a name.
        """
        for text in notices(self.outputs, self._epoch_s):
            self._notice(text)
        layout = ImageStore(self._home.root).layout
        with layout.adding():
            images = []
            for build in self._builds:
                if made := build.run().made:
                    images.append(made)
            self._export_cache(layout)
            if self._only_files:
                return Result(None, ())
            document = {
                "schemaVersion": 2,
                "mediaType": MEDIA_TYPE_INDEX,
                "manifests": [each.descriptor for each in images],
            }
            descriptor = layout.write_json(document, MEDIA_TYPE_INDEX)
            sync(self._home.root)
            for name in self.names:
                layout.set_name(name, descriptor)
            if not self.names:
                layout.change(lambda items: [*items, descriptor])
            for output in self.outputs:
                if output.type == "oci":
                    write_index_archive(layout, descriptor, self.names, output)
        digest = descriptor["digest"]
        return Result(Made(digest, digest, descriptor, is_new=True), self.names)

    def _export_cache(self, layout: Layout) -> None:
        from minibox.build.remote_cache.export import export

        places = [place for text in self._cache_to for place in parse_places(text, TO)]
        export(layout, places, [line for build in self._builds for line in build.exported], self._notice)

    def _notice(self, text: str) -> None:
        self._on_event(Notice(text))

    def cancel(self) -> None:
        """End the build from another thread."""
        for build in self._builds:
            build.cancel()

    def _outputs_of(self, platform: Platform, directories: list[str]) -> tuple[str, ...]:
        """Files go to a directory for each platform, as in Docker; if images are wanted, too, they are kept."""
        below = str(platform).replace("/", "_")
        files = [f"type=local,dest={each}/{below}" for each in directories]
        return (*files, *(() if self._only_files or not files else ("type=image",)))

    def _teller(self, platform: Platform) -> Callable[[Event], None]:
        """Return what tells a build's events with the platform, and lines numbered on from the build before."""
        before = -1

        def tell(event: Event) -> None:
            nonlocal before
            if before < 0:
                before = self._lines
            if isinstance(event, LineStarted):
                self._lines = max(self._lines, before + event.line)
                event = replace(event, stage=f"{platform} {event.stage}")
            if isinstance(event, (LineStarted, LineOutput, LineEnded)):
                event = replace(event, line=before + event.line)
            self._on_event(event)

        return tell
