"""What the lines of one build share: its place, options, contexts and cache, base images, and whom to tell of events."""

from __future__ import annotations

import os
from threading import BoundedSemaphore, Lock

from minibox.build.dockerfile import instructions as kinds
from minibox.build.dockerfile.lines import Problem
from minibox.build.durability import is_sound
from minibox.build.events import LineStarted, Notice
from minibox.build.failure import LineFailed
from minibox.build.image.make import forget
from minibox.build.result import StageJob
from minibox.build.steps.sources import FromContext, FromLayers, FromTexts, Sources
from minibox.build.steps.step import Cancelled, Place, Running, make_scratch
from minibox.engine.files import rootfs_setup
from minibox.engine.host.user_namespace import run_inside
from minibox.engine.spec.options import RunOptions
from minibox.errors import DockerfileError, ImageNotFound, MiniboxError
from minibox.image.store import ImageStore
from minibox.storage.drivers import snapshotter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from minibox.base.home import Home
    from minibox.build.cache import Cache
    from minibox.build.context.context import Selection
    from minibox.build.dockerfile.mounts import Mount
    from minibox.build.events import Event
    from minibox.build.graph import Origin, Stage
    from minibox.build.history import History
    from minibox.build.opening import Contexts
    from minibox.build.options import BuildOptions
    from minibox.build.packing import Packing
    from minibox.build.remote_cache.caches import RemoteCaches
    from minibox.build.remote_cache.export import BuiltLine
    from minibox.image.layout.image import ResolvedImage

    T = TypeVar("T")


class Session:
    """One build, as its lines see it. You can use it from any thread.

    Attributes:
        contexts, dockerfile, cache: set once they are open.
        running: ends its containers.
        remote: looks lines up in the caches of other machines; None without --cache-from and --cache-to.
        built: its lines, if they are to be exported.
        packing: packs the layers of the stages ``stages_of_image``, unless only files are wanted.
        has_terminal: somebody can answer.
        history: what the last build of this Dockerfile did.
        jobs: its stages, by index.
        storage: the storage driver.
    """

    contexts: Contexts
    dockerfile: kinds.Dockerfile
    cache: Cache

    def __init__(
        self, home: Home, options: BuildOptions, storage_driver: str, on_event: Callable[[Event], None]
    ) -> None:
        self.options = options
        self.history: History | None = None
        self.storage = snapshotter(home.root, storage_driver)
        self.place = Place(home, self.storage.driver, options.source_date_epoch)
        self.store = ImageStore(home.root)
        self.running = Running()
        self.jobs: dict[int, StageJob] = {}
        self.remote: RemoteCaches | None = None
        self.built: list[BuiltLine] = []
        self.packing: Packing | None = None
        self.stages_of_image: frozenset[int] = frozenset()
        self.has_terminal = os.isatty(0) and os.isatty(2)
        self.lock, self._image_lock = Lock(), Lock()
        self._on_event, self._event_lock = on_event, Lock()
        self._slots = BoundedSemaphore(max(1, len(os.sched_getaffinity(0))))
        self._lines = 0
        self._images: dict[tuple[str, str], ResolvedImage] = {}

    def has_layer(self, layer: str) -> bool:
        """Tell whether a line's layer exists. One that a power loss may have damaged is removed."""
        if not self.storage.is_unpacked((layer,)):
            return False
        if is_sound(self.place.root, self.place.driver, layer):
            return True
        run_inside(lambda: self.storage.remove_layer(layer))
        forget(self.place.root, self.place.driver, layer)  # the new one may be another
        return False

    @property
    def keeps_failed(self) -> bool:
        """Whether to keep what a line that fails began with, and what it left."""
        return self.options.shell or not self.has_terminal

    # ---- base images and other stages -----------------------------------------------------------

    def wait_for(self, index: int) -> StageJob:
        """Wait for another stage.

        Raises:
            Cancelled: it has failed.
        """
        job = self.jobs[index]
        job.done.wait()
        if not job.result:
            raise Cancelled("a stage that this one needs has failed")
        return job

    def image(self, origin: Origin, stage: Stage) -> ResolvedImage:
        """Find an image in the store or pull it, and unpack its layers."""
        from minibox.engine.resources.registry import resolve_pulling
        from minibox.image.reference import parse_name

        name = self.contexts.image_of(origin.name) if origin.kind == "context" else origin.name
        platform = str(stage.platform or "") or self.options.platform
        with self._image_lock:  # not `lock`: a pull takes long, and other stages go on
            if found := self._images.get((name, platform)):
                return found
            image = None if self.options.pull or platform else self._find(name)
            if image is None:
                wanted = RunOptions(image=name, pull="always" if self.options.pull else "missing", platform=platform)
                image = self.running.beside(lambda: resolve_pulling(self.store, parse_name(name), wanted, None))
            if image.chain_ids:
                rootfs_setup.unpack(self.storage, self.store, image)
            self._images[name, platform] = image
            return image

    def _find(self, name: str) -> ResolvedImage | None:
        try:
            return self.store.resolve(name)
        except ImageNotFound:
            return None

    # ---- what lines read ------------------------------------------------------------------------

    def sources(self, stage: Stage, line: kinds.Copy | kinds.Add) -> Sources:
        """Find the sources of COPY or ADD."""
        if not line.sources:
            return FromTexts()
        if isinstance(line, kinds.Add):
            from minibox.build.steps.added import added

            return self.running.beside(lambda: added(self.contexts, line))
        name = line.from_name
        if not name:
            return FromContext(self.contexts.main, line)
        origin = stage.origin(name)
        if origin.kind == "context" and (context := self.contexts.named(origin.name)):
            return FromContext(context, line)
        what = f"stage {origin.name!r}" if origin.kind == "stage" else f"image {origin.name!r}"
        return FromLayers(self.place, self._layers_of(stage, origin), what, line)

    def _layers_of(self, stage: Stage, origin: Origin) -> tuple[str, ...]:
        if origin.kind == "stage":
            assert origin.stage is not None
            result = self.wait_for(origin.stage).result
            assert result
            return result.chain
        if origin.kind == "scratch":
            return make_scratch(self.place)
        return self.image(origin, stage).chain_ids or make_scratch(self.place)

    def mount_files(self, stage: Stage, mount: Mount) -> tuple[str, tuple[str, ...]]:
        """What a mount takes its files from: see `RunMounts`."""
        if not mount.from_name:
            return (self.contexts.main.tree.path, ()) if mount.type == "bind" else ("", make_scratch(self.place))
        origin = stage.origin(mount.from_name)
        if origin.kind == "context" and (context := self.contexts.named(origin.name)):
            return context.tree.path, ()
        return "", self._layers_of(stage, origin)

    def mount_input(self, stage: Stage, mount: Mount) -> str | Selection:
        """What a bind mount's files are, for the key of its line."""
        directory, chain = self.mount_files(stage, mount)
        if not directory:
            return chain[-1][7:]
        context = self.contexts.main if not mount.from_name else self.contexts.named(stage.origin(mount.from_name).name)
        assert context
        return context.select([mount.source.strip("/") or "."])

    # ---- for lines ------------------------------------------------------------------------------

    def is_fresh(self, stage: Stage) -> bool:
        """Whether the stage's lines must not be looked up."""
        return self.options.no_cache or stage.label in self.options.no_cache_filter

    def slot(self) -> BoundedSemaphore:
        """One of the slots for lines that work, for a ``with`` statement."""
        return self._slots

    def guarded(self, line: kinds.Instruction, work: Callable[[], T]) -> T:
        """Do something for a line; errors tell the line."""
        try:
            return work()
        except Problem as problem:
            raise line.line.error(self.dockerfile.name, problem) from None
        except (DockerfileError, LineFailed, Cancelled):
            raise
        except MiniboxError as error:
            where = f"{line.keyword}: {error}"
            raise DockerfileError(self.dockerfile.name, line.span.first, 0, where, error.hint) from error

    # ---- events ---------------------------------------------------------------------------------

    def begin_line(self, stage: Stage, number: int, total: int, text: str) -> int:
        """Tell that a line begins; return its number in the build."""
        with self.lock:
            self._lines += 1
            line = self._lines
        self.emit(LineStarted(line, stage.name or f"stage-{stage.index}", number, total, text))
        return line

    def emit(self, event: Event) -> None:
        """Tell an event."""
        with self._event_lock:
            self._on_event(event)

    def notice(self, text: str) -> None:
        """Tell something that the user should know."""
        self.emit(Notice(text))
