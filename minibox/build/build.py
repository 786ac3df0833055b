"""One build: the stages that the target needs, side by side where they don't depend on each other, and the image.

Each stage has a thread. Lines that work (RUN, COPY) take one of as many slots as there are processors; a thread that
waits for another stage has none. Ctrl-C, or the failure of one stage, ends the containers of the others.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from threading import Thread
from time import monotonic

from minibox.build.cache import Cache
from minibox.build.checking import check_dockerfile
from minibox.build.dockerfile import instructions as kinds
from minibox.build.dockerfile.parser import parse
from minibox.build.durability import sync
from minibox.build.events import DONE, FAILED, LineEnded
from minibox.build.failure import LineFailed
from minibox.build.graph import Graph, Stage
from minibox.build.history import History
from minibox.build.image.draft import Draft
from minibox.build.image.export import notices, parse_output, write_archive, write_files
from minibox.build.image.make import Made, make_image
from minibox.build.opening import Contexts
from minibox.build.packing import Packing
from minibox.build.remote_cache.words import FROM, MAX, TO, parse_places
from minibox.build.result import StageJob, StageResult
from minibox.build.session import Session
from minibox.build.stage import StageRun
from minibox.build.steps.step import Cancelled, make_scratch
from minibox.build.words import EPOCH, check_network
from minibox.engine.spec.limits import rlimits
from minibox.engine.spec.options import typed
from minibox.errors import DockerfileError
from minibox.image.platform import parse_platform
from minibox.image.reference import parse as parse_reference
from minibox.record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, BinaryIO

    from minibox.base.home import Home
    from minibox.build.dockerfile.scope import Scope
    from minibox.build.events import Event
    from minibox.build.options import BuildOptions
    from minibox.build.remote_cache.export import Exported
    from minibox.image.layout.layout import Layout

SHOWN = (kinds.Run, kinds.Copy, kinds.Add, kinds.Workdir)
FILES = ("local", "tar")
WAIT_S = 0.2  # how often the main thread looks for a signal
ENDING_S = 5.0  # how long it waits for the others after that


@record
class Result:
    """What a build has made.

    Attributes:
        made: the image; None if only files were asked for.
        names: its full names.
    """

    made: Made | None
    names: tuple[str, ...]

    def metadata(self) -> dict[str, Any]:
        """The content of ``--metadata-file``, with Docker's names."""
        if not self.made:
            return {}
        found: dict[str, Any] = {
            "containerimage.config.digest": self.made.id,
            "containerimage.descriptor": self.made.descriptor,
            "containerimage.digest": self.made.digest,
        }
        if self.names:
            found["image.name"] = ",".join(self.names)
        return found


class Build:
    """A build. `run` carries it out once.

    Attributes:
        outputs: where its result goes; () for only the store.
        names: the full names of its image.
        exported: the lines for --cache-to.
    """

    graph: Graph
    exported: Sequence[Exported] = ()

    def __init__(
        self,
        home: Home,
        options: BuildOptions,
        *,
        storage_driver: str = "",
        on_event: Callable[[Event], None] = lambda _: None,
        stdin: BinaryIO | None = None,
        is_part: bool = False,
    ) -> None:
        """
        Args:
            is_part: an index will refer to the image, so it isn't kept without a name.
            stdin: where a context or a Dockerfile ``-`` comes from.
            on_event: called with each event, by one thread at a time.

        Raises:
            UsageError: an option is invalid.
        """
        check_network(options.network)
        rlimits(typed({"add_host": options.add_host, "ulimit": options.ulimit})["ulimit"])  # even if no RUN needs them
        self.options = options
        self.outputs = tuple(parse_output(text) for text in options.outputs)
        self.names = tuple(
            str(parse_reference(name)) for name in (*options.tags, *(each.name for each in self.outputs if each.name))
        )
        self._cache_from = tuple(place for text in options.cache_from for place in parse_places(text, FROM))
        self._cache_to = tuple(place for text in options.cache_to for place in parse_places(text, TO))
        self._session = Session(home, options, storage_driver, on_event)
        self._stdin, self._is_part = stdin, is_part
        self._error: BaseException | None = None

    def run(self) -> Result:
        """Build the target, store the image under its names, and write the other outputs.

        Raises:
            DockerfileError: the Dockerfile has a mistake.
            LineFailed: a line's command failed.
            MiniboxError: anything else.
        """
        session, options = self._session, self.options
        root = session.place.root
        with ExitStack() as stack:
            session.contexts = stack.enter_context(Contexts(options, root, self._stdin))
            session.dockerfile = parse(session.contexts.dockerfile, session.contexts.dockerfile_name)
            self.graph = Graph(
                session.dockerfile,
                target=options.target,
                build_args=self._build_args(),
                contexts=[name for name, _ in options.contexts],
                platform=parse_platform(options.platform) if options.platform else None,
            )
            self._tell(root)
            layout = session.store.layout
            stack.enter_context(layout.adding())
            if not self._only_files:
                session.packing = stack.enter_context(Packing(session.place, layout))
            session.stages_of_image = self._stages_of_image()
            if self._cache_from or self._cache_to:
                stack.enter_context(self._open_caches(layout))
            session.cache = stack.enter_context(Cache(root, session.place.driver, session.has_layer))
            session.history = History(root, session.contexts.identity)
            try:
                result = self._result(self.graph.target)
            except LineFailed as error:
                if session.packing:
                    session.packing.wait()
                if error.failed:
                    from minibox.build.failed_shell import open_failed

                    open_failed(session, error, error.failed)
                elif not session.keeps_failed:
                    error.hint = "\n".join(
                        [*filter(None, [error.hint]), "--shell opens a shell in the state before it"]
                    )
                raise
            finally:
                session.history.save()
            for output in self.outputs:
                if output.type in FILES:
                    write_files(session.place, result.chain, output)
            finished = Result(None, ()) if self._only_files else self._finish(layout, result)
            if self._cache_to:
                self._export_cache(layout)
            return finished

    @property
    def _only_files(self) -> bool:
        return bool(self.outputs) and all(output.type in FILES for output in self.outputs)

    def _stages_of_image(self) -> frozenset[int]:
        """The target, and the stages that it begins with: their layers are the image's."""
        found, stage = set(), self.graph.stages[self.graph.target]
        found.add(stage.index)
        while stage.base.stage is not None:
            stage = self.graph.stages[stage.base.stage]
            found.add(stage.index)
        return frozenset(found)

    @contextmanager
    def _open_caches(self, layout: Layout) -> Iterator[None]:
        """Let lines be looked up in the caches of other machines during a ``with`` block."""
        from minibox.build.remote_cache.caches import RemoteCaches

        session = self._session
        remote = RemoteCaches(session.place, layout, session.storage, self._cache_from, session.running, session.notice)
        session.remote, session.running.when_cancelled = remote, remote.close
        try:
            yield
        finally:
            remote.close()

    def _export_cache(self, layout: Layout) -> None:
        """Write the lines where --cache-to says, or leave that to the build that this is a part of."""
        from minibox.build.remote_cache.export import export, pack_lines

        session = self._session
        assert session.remote
        states, every = session.remote.states, any(each.mode == MAX for each in self._cache_to)
        self.exported = pack_lines(states, session.built, every=every)
        if states.sizes:
            sync(session.place.root)
        if not self._is_part:
            export(layout, self._cache_to, self.exported, session.notice)

    def cancel(self) -> None:
        """End the build from another thread."""
        self._session.running.cancel()

    def _tell(self, root: str) -> None:
        """Tell what has no effect in the Dockerfile, and what the rules find; with its ``check=error=true``, that fails."""
        session = self._session
        checked = check_dockerfile(root, self.options, session.contexts, session.dockerfile)
        found = [
            f"{checked.name}:{each.line}:{each.column}: {each.rule.name}: {each.message}" for each in checked.findings
        ]
        for text in self.graph.notices() + notices(self.outputs, self.options.source_date_epoch) + found:
            session.notice(text)
        if found and checked.is_error:
            rules = ", ".join(sorted({each.rule.name for each in checked.findings}))
            hint = "mend what it found, or skip the rules there"
            raise DockerfileError(checked.name, 0, 0, f"lint violation found for rules: {rules}", hint)

    def _finish(self, layout: Layout, result: StageResult) -> Result:
        """Make the image, name it, and write its archives."""
        session, options, draft = self._session, self.options, result.draft
        if options.labels:
            draft.set_labels(options.labels, told=False)
        if options.platform:
            draft.set_platform(parse_platform(options.platform))
        assert session.packing
        session.packing.wait()
        made = make_image(
            session.place,
            layout,
            draft,
            result.base,
            result.layers,
            result.below,
            options.annotations,
            {**session.packing.sizes, **(session.remote.states.sizes if session.remote else {})},
        )
        if made.is_new:
            sync(session.place.root)  # before a name refers to it
        for name in self.names:
            layout.set_name(name, made.descriptor)
        if not self.names and not self._is_part:
            layout.change(lambda items: [*items, made.descriptor])
        for output in self.outputs:
            if output.type in ("oci", "docker") and output.destination:
                write_archive(session.place.home, made, self.names, output)
        return Result(made, self.names)

    def _build_args(self) -> dict[str, str]:
        found = dict(self.options.build_args)
        if self.options.source_date_epoch is not None:
            found.setdefault(EPOCH, str(self.options.source_date_epoch))
        return found

    # ---- stages ---------------------------------------------------------------------------------

    def _result(self, target: int) -> StageResult:
        """Build all stages that the target needs."""
        session = self._session
        try:
            self._begin(target)
            job = session.jobs[target]
            while not job.done.wait(WAIT_S):
                pass
        except BaseException:
            session.running.cancel()
            raise
        finally:
            until = monotonic() + ENDING_S
            for each in list(session.jobs.values()):
                each.done.wait(max(0.0, until - monotonic()) if session.running.is_cancelled else None)
        if self._error:
            raise self._error
        assert job.result
        return job.result

    def _begin(self, index: int) -> None:
        """Start the threads of a stage and of those that it needs. You can call it twice."""
        for stage in self.graph.needed_by(index):
            with self._session.lock:
                if stage.index in self._session.jobs:
                    continue
                job = self._session.jobs[stage.index] = StageJob()
            Thread(target=self._carry_out, args=(stage.index, job), name=f"stage {stage.label}", daemon=True).start()

    def _carry_out(self, index: int, job: StageJob) -> None:
        try:
            job.result, job.scope = self._stage(index)
        except BaseException as error:
            with self._session.lock:
                if self._error is None or isinstance(self._error, Cancelled):
                    self._error = error
            if isinstance(error, LineFailed) and error.failed and error is not self._error:
                from minibox.build.failed_shell import forget_failed

                forget_failed(self._session, error.failed)  # another line's failure is told
            self._session.running.cancel()
        finally:
            job.done.set()

    def _stage(self, index: int) -> tuple[StageResult, Scope]:
        stage = self.graph.stages[index]
        start, parent = self._start(stage)
        triggers = start.draft.take_triggers()
        if triggers and stage.base.kind != "stage":  # those of a stage are among the stage's lines already
            stage = self.graph.add_triggers(index, triggers)
            for needed in stage.needs:
                self._begin(needed)
        scope = self.graph.scope(stage, start.draft.env.items(), parent)
        run = StageRun(self._session, stage, scope, start, self._total(stage))
        for instruction in stage.instructions:
            run.carry_out(instruction)
        return run.result(), scope

    @staticmethod
    def _total(stage: Stage) -> int:
        """How many of the stage's lines are shown: FROM and those that work."""
        return 1 + sum(isinstance(each, SHOWN) for each in stage.instructions)

    def _start(self, stage: Stage) -> tuple[StageResult, Scope | None]:
        """What a stage begins with."""
        session, base, epoch_s = self._session, stage.base, self.options.source_date_epoch
        if base.kind == "stage":
            assert base.stage is not None
            job = session.wait_for(base.stage)
            assert job.result
            return replace(job.result, draft=job.result.draft.copy()), job.scope
        number = session.begin_line(stage, 1, self._total(stage), stage.head.text)
        state = FAILED
        try:
            if base.kind == "scratch":
                result = StageResult(Draft(None, epoch_s), None, make_scratch(session.place), ())
            else:
                image = session.guarded(stage.head, lambda: session.image(base, stage))
                chain = image.chain_ids or make_scratch(session.place)
                result = StageResult(Draft(image.config, epoch_s), image, chain, ())
            state = DONE
        finally:
            session.emit(LineEnded(number, state, 0.0))
        return result, None
