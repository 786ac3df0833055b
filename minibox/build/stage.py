"""Carry out the lines of one stage: find each in the cache, or carry it out and put it there.

Lines that only change the config (ENV, CMD ...) are never looked up: what they change is part of the key of those lines
after them that depend on it. So a LABEL that has changed doesn't carry out the RUN below it again.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from time import monotonic, time

from minibox.build.dockerfile import instructions as kinds
from minibox.build.dockerfile.lines import Problem
from minibox.build.dockerfile.scope import proxies
from minibox.build.events import CACHED, DONE, FAILED, LineEnded, LineOutput
from minibox.build.failure import FailedState, LineFailed
from minibox.build.history import Place
from minibox.build.image.config_lines import CONFIG_LINES
from minibox.build.line import Line as StoredLine
from minibox.build.line import key_of
from minibox.build.result import StageResult
from minibox.build.steps import step
from minibox.build.why import reused, why
from minibox.docker_words.pairs import parse_variable
from minibox.engine.spec.image_files import read_text
from minibox.engine.spec.options import RunOptions, typed
from minibox.engine.spec.users import resolve_user
from minibox.errors import BuildError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from minibox.build.context.context import Selection
    from minibox.build.dockerfile.mounts import Mount
    from minibox.build.dockerfile.scope import Scope
    from minibox.build.graph import Stage
    from minibox.build.line import Key
    from minibox.build.session import Session

OUTPUT_LINES_SHOWN = 10
"""How many lines of a failed command's output its error repeats."""
HOSTNAME = "buildkitsandbox"  # BuildKit's
NETWORKS = {"default": "", "none": "none", "host": "host"}


class StageRun:
    """The lines of one stage, in order."""

    def __init__(self, session: Session, stage: Stage, scope: Scope, start: StageResult, total: int) -> None:
        """
        Args:
            start: what its FROM names.
            total: how many of its lines are shown, FROM included.
        """
        self._session, self._stage, self._scope, self._total = session, stage, scope, total
        self._place, self._options = session.place, session.options
        self.draft = start.draft.copy()
        self._start = start
        self._layers = list(start.layers)
        self._number = 1
        self._proxies = tuple(proxies(dict(session.options.build_args)).items())
        self._fresh = session.is_fresh(stage)

    @property
    def _chain(self) -> tuple[str, ...]:
        return (*self._start.below, *self._layers)

    def result(self) -> StageResult:
        """What the lines so far have made."""
        return StageResult(self.draft, self._start.base, self._start.below, tuple(self._layers))

    def carry_out(self, written: kinds.Instruction) -> None:
        """Carry out one line.

        Raises:
            MiniboxError: it failed; the error names the line.
        """
        self._session.running.check()
        line = self._scope.resolve(written)
        change = CONFIG_LINES.get(type(line))
        if change:
            self._session.guarded(line, lambda: change(self.draft, line))
        elif isinstance(line, kinds.Run):
            self._run(line)
        elif isinstance(line, kinds.Workdir):
            self._workdir(line)
        elif isinstance(line, (kinds.Copy, kinds.Add)):
            self._copy(line)
        else:
            raise BuildError(f"{line.keyword} is not built yet")

    # ---- the cache ------------------------------------------------------------------------------

    def _cached(
        self,
        line: kinds.Instruction,
        facts: Mapping[str, str],
        inputs: Mapping[str, str | Selection],
        make: Callable[[int, str], bool],
    ) -> bool:
        """Find the line's layer or make it; tell whether there is one.

        Args:
            facts, inputs: see `line.key_of`.
            make: carries it out, given the line's number in the build and the layer's name; tells whether it has
                written anything.
        """
        session, chain = self._session, self._chain
        self._number += 1
        number = session.begin_line(self._stage, self._number, self._total, line.text)
        began = monotonic()
        if self._place.newest_s is not None:
            facts = {**facts, "SOURCE_DATE_EPOCH": str(self._place.newest_s)}
        key = key_of(chain[-1], facts, inputs)
        # A line that is carried out anew must not meet the layer that it made before.
        layer = f"sha256:{os.urandom(32).hex() if self._fresh else key.id}"

        def carry_out() -> StoredLine:
            has_layer = session.guarded(line, lambda: make(number, layer))
            layers = (*chain, layer) if has_layer else chain
            where = f"{session.dockerfile.name}:{line.span.first}"
            size_bytes = session.storage.layer_bytes(layer) if has_layer else 0
            return StoredLine(key, line.text, where, time(), layers, has_layer, {}, size_bytes)

        place = Place(self._stage.label, self._number, line.text)
        history = session.history
        assert history
        reasons: list[str] = []
        if self._options.why and self._fresh:
            reasons = ["--no-cache"]
        elif self._options.why and not session.cache.find(key):
            reasons = why(self._place.root, history, place, key, inputs)
        try:
            if known := self._found(key, line, inputs):
                found, is_made = known, False
            else:
                found, is_made = session.cache.find_or_make(key, carry_out, inputs, fresh=self._fresh)
        except BaseException:
            session.emit(LineEnded(number, FAILED, monotonic() - began))
            raise
        history.note(place, found.key)
        self._note_remote(key, found)
        if reasons and session.remote and not self._fresh:
            reasons += [f"the cache {name} doesn't have it" for name in session.remote.names]
        told = "; ".join(reasons) if is_made else reused(found) if self._options.why else ""
        session.emit(LineEnded(number, DONE if is_made else CACHED, monotonic() - began, told))
        self.draft.made_at(found.made_s)
        if found.has_layer:
            self._layers.append(found.own_layer)
            if is_made and session.packing and self._stage.index in session.stages_of_image:
                session.packing.add(self._chain)
        return bool(found.has_layer)

    def _found(self, key: Key, line: kinds.Instruction, inputs: Mapping[str, str | Selection]) -> StoredLine | None:
        """Find a line here, or in the cache of another machine; None if it must be carried out."""
        session = self._session
        if self._fresh or not session.remote:
            return None
        return session.cache.find(key) or session.remote.find(
            session.cache, key, self._start.below, tuple(self._layers), line.text, inputs
        )

    def _note_remote(self, key: Key, found: StoredLine) -> None:
        """Note a line for those after it, and for --cache-to."""
        session, stage = self._session, self._stage
        if not session.remote:
            return
        from minibox.build.remote_cache.export import BuiltLine

        everywhere = session.remote.states.key(key)
        if found.has_layer:
            session.remote.states.note(found.own_layer, everywhere)
        is_in_image = stage.index in session.stages_of_image
        built = BuiltLine(everywhere, found, self._start.below, tuple(self._layers), is_in_image)
        with session.lock:
            session.built.append(built)

    # ---- RUN ------------------------------------------------------------------------------------

    def _run(self, line: kinds.Run) -> None:
        draft = self.draft
        for word, value in (("security", line.security == "insecure"), ("device", line.devices)):
            if value:
                problem = Problem(f"RUN --{word} is not supported", at=f"--{word}")
                raise line.line.error(self._session.dockerfile.name, problem)
        arguments = self._arguments()
        words = self._words(line)
        network = self._options.network if line.network == "default" else line.network
        facts = {
            "line": json.dumps(list(words)),
            "network": network,
            **({"hostname": self._hostname} if self._hostname != HOSTNAME else {}),
            **({"add-host": " ".join(self._options.add_host)} if self._options.add_host else {}),
            **({"userns": self._options.userns} if self._options.userns else {}),
            "user": str(draft.config.get("User") or ""),
            "workdir": draft.workdir,
            **{f"env {name}": value for name, value in draft.env.items()},
            **{f"arg {name}": value for name, value in arguments},
            **{f"mount {number}": str(mount) for number, mount in enumerate(line.mounts)},
            **{f"file {each.name}": each.text for each in line.heredocs},
        }
        inputs = {
            f"mount {mount.target}": self._mount_input(line, mount) for mount in line.mounts if mount.type == "bind"
        }

        def make(number: int, layer: str) -> bool:
            return self._execute(line, words, network, arguments, number, layer)

        made = self._cached(line, facts, inputs, make)
        given = [f"{name}={value or ''}" for name, value in self._scope.arguments.items()]
        told = f"|{len(given)} {' '.join(given)} " if given else ""
        draft.note(f"RUN {told}{' '.join(words)} # buildkit", layer=made)

    def _mount_input(self, line: kinds.Run, mount: Mount) -> str | Selection:
        return self._session.guarded(line, lambda: self._session.mount_input(self._stage, mount))

    def _arguments(self) -> tuple[tuple[str, str], ...]:
        """The ARGs that RUN sees as variables, besides those that ENV sets to the same."""
        scope = self._scope
        names = [name for name, value in scope.arguments.items() if value is not None]
        return tuple((name, scope.variables[name]) for name in names if scope.env.get(name) != scope.variables[name])

    def _words(self, line: kinds.Run) -> tuple[str, ...]:
        if not line.command.shell:
            return line.command.words
        if line.script:
            return (f"/dev/pipes/{line.script.name}",)
        return (*self.draft.shell, line.shell_text)

    @property
    def _hostname(self) -> str:
        """The same for each RUN of each build: what it writes may contain it."""
        return dict(self._options.build_args).get("BUILDKIT_SANDBOX_HOSTNAME") or HOSTNAME

    def _execute(
        self,
        line: kinds.Run,
        words: tuple[str, ...],
        network: str,
        arguments: tuple[tuple[str, str], ...],
        number: int,
        layer: str,
    ) -> bool:
        from minibox.build.steps.mounts import RunMounts

        session, draft, options = self._session, self.draft, self._options
        last: list[bytes] = []
        failed_layer = f"sha256:{os.urandom(32).hex()}" if session.keeps_failed else ""

        def on_output(data: bytes) -> None:
            last.append(data)
            if len(last) > 256:
                del last[:128]
            session.emit(LineOutput(number, data))

        with (
            session.slot(),
            RunMounts(self._place, options, lambda each: session.mount_files(self._stage, each)) as mounts,
        ):
            mounted = mounts.prepare(line.mounts, draft.absolute)
            script = mounts.script(line.script) if line.script else ()
            run_options = RunOptions(
                image=self._stage.base.name,
                command=words,
                entrypoint="",
                rm=True,
                network=NETWORKS.get(network, network),
                hostname=self._hostname,
                env=tuple(parse_variable(f"{name}={value}") for name, value in (*self._proxies, *arguments))
                + mounted.env,
                shm_size_bytes=options.shm_size_bytes,
                memory_bytes=options.memory_bytes,
                cpuset_cpus=options.cpuset_cpus,
                userns=options.userns,
                large_ids=True,
                no_healthcheck=True,
                **typed(
                    {
                        "mount": (*mounted.mount, *script),
                        "tmpfs": mounted.tmpfs,
                        "add_host": options.add_host,
                        "ulimit": options.ulimit,
                    }
                ),
            )
            config: dict[str, Any] = {
                key: draft.config[key] for key in ("Env", "User", "WorkingDir") if key in draft.config
            }
            ended = step.run(
                self._place,
                self._chain,
                layer,
                run_options,
                config,
                running=session.running,
                on_output=on_output,
                on_note=session.notice,
                made=mounted.points,
                failed_layer=failed_layer,
            )
        if ended.status:
            error = LineFailed(session.dockerfile, line, words, ended, b"".join(last))
            if session.keeps_failed:
                layer = failed_layer if ended.made_layer else ""
                error.failed = FailedState(self.result(), layer, run_options, line, self._stage)
            raise error
        return ended.made_layer

    # ---- WORKDIR --------------------------------------------------------------------------------

    def _workdir(self, line: kinds.Workdir) -> None:
        path = self.draft.absolute(line.path)
        written = line.path if line.path.startswith("/") else path
        if path == "/":
            self.draft.set_workdir(written, layer=False)
            return
        owner = self._user()
        facts = {"line": f"WORKDIR {path}", **({"chown": str(owner)} if owner != (0, 0) else {})}

        def make(number: int, layer: str) -> bool:
            from minibox.build.steps.placing import Destination, Given

            def work(root_fd: int) -> None:
                Destination(root_fd, path, Given(owner, "", self._time_ns), is_directory=True)

            return step.write(self._place, self._chain, layer, work)

        self.draft.set_workdir(written, layer=self._cached(line, facts, {}, make))

    def _user(self) -> tuple[int, int]:
        """USER's ids, who owns directories that WORKDIR makes; root's if the files of the stage don't have it, as in Docker."""
        user = self.draft.config.get("User") or ""
        for words in (user, user.partition(":")[0]) if user else ():
            with suppress(UsageError):
                return self._owner(words)
        return 0, 0

    # ---- COPY and ADD ---------------------------------------------------------------------------

    def _copy(self, line: kinds.Copy | kinds.Add) -> None:
        draft, session = self.draft, self._session
        destination = draft.absolute(line.destination)
        is_directory = line.destination.endswith(("/", "/.")) or line.destination in (".", "")
        is_directory = is_directory or len(line.sources) + len(line.heredocs) > 1
        source = session.guarded(line, lambda: session.sources(self._stage, line))
        owner = self._owner(line.chown) if line.chown else (None if source.keeps_owner else (0, 0))
        facts = {
            "line": f"{line.keyword} {json.dumps(list(line.sources))}",
            "destination": destination + ("/" if is_directory else ""),
            "chown": str(owner),
            "chmod": line.chmod,
            **source.facts,
            **{f"file {each.name}": each.text for each in line.heredocs},
        }

        def make(number: int, layer: str) -> bool:
            from minibox.build.steps.placing import Destination, Given

            given = Given(owner, line.chmod, self._time_ns, owner if line.chown else None)

            def work(root_fd: int) -> None:
                check = session.running.check
                target = Destination(root_fd, destination, given, is_directory=is_directory, check=check)
                source.write(target)
                for each in line.heredocs:
                    target.write_text(each.name, each.text)

            with session.slot():
                return step.write(self._place, self._chain, layer, work)

        made = self._cached(line, facts, source.inputs, make)
        flags = [f"--{name}={value}" for name, value in (("chown", line.chown), ("chmod", line.chmod)) if value]
        if isinstance(line, kinds.Copy) and line.parents:
            flags.insert(0, "--parents")
        words = [*flags, *line.sources, *(f"<<{each.name}" for each in line.heredocs), line.destination]
        draft.note(f"{line.keyword} {' '.join(words)} # buildkit", layer=made)

    @property
    def _time_ns(self) -> int | None:
        newest_s = self._place.newest_s
        return None if newest_s is None else newest_s * 1_000_000_000

    def _owner(self, chown: str) -> tuple[int, int]:
        """Look up a value of --chown in the files of the stage so far."""
        storage = self._session.storage
        lowers = storage.describe("none", self._chain).lowers
        user, colon, group = chown.partition(":")
        found = resolve_user(chown, (), lambda path: read_text(storage.open_lower, lowers, path))
        if not colon and user.isdecimal():
            return found.uid, int(user)  # as in Docker: a number alone is the group's, too
        return found.uid, found.gid
