"""After a RUN has failed, two images: the state before it, and with what it left on top.

They have no name, so that `minibox image prune` removes them. On a terminal they are made for ``build --shell`` only, and a
shell opens in the first one, with the line's mounts and variables.
"""

from __future__ import annotations

import os

from minibox.base.home import default_root
from minibox.build.durability import sync
from minibox.build.image.make import forget, make_image
from minibox.build.steps.mounts import RunMounts
from minibox.engine.spec.options import typed
from minibox.errors import MiniboxError
from minibox.record import replace
from minibox.storage.snapshot import release_layer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.build.failure import FailedState, LineFailed
    from minibox.build.session import Session

ID_SHOWN = 12


def open_failed(session: Session, error: LineFailed, failed: FailedState) -> None:
    """Make the images, say in the error's hint how to open them, and open a shell on a terminal."""
    try:
        hint, before = _keep(session, failed)
    except (MiniboxError, OSError) as problem:
        session.notice(f"the state before the line is not kept: {problem}")
        forget_failed(session, failed)
        return
    error.hint = hint if not error.hint else f"{error.hint}\n{hint}"
    if session.options.shell and session.has_terminal:
        _shell(session, failed, before, error)


def forget_failed(session: Session, failed: FailedState) -> None:
    """Nobody will ask for what a line has left."""
    if failed.layer:
        forget(session.place.root, session.place.driver, failed.layer)
        release_layer(session.place.root, session.place.driver, failed.layer)


def _keep(session: Session, failed: FailedState) -> tuple[str, str]:
    """Make the images; return the commands that open them, and the id of the state before the line."""
    state = failed.state
    draft = state.draft.copy()
    draft.set_env([(each.name, each.value or "") for each in failed.options.env])
    layout, place = session.store.layout, session.place
    sizes = session.packing.sizes if session.packing else {}
    before = make_image(place, layout, draft, state.base, state.layers, state.below, sizes=sizes)
    made = [before]
    program = "minibox"
    if place.root != default_root(os.environ, os.geteuid()):
        from shlex import quote

        program += f" --root {quote(place.root)}"
    hint = f"{program} shell {_short(before.id)} opens the state before the line"
    if failed.layer:
        after = make_image(place, layout, draft, state.base, (*state.layers, failed.layer), state.below)
        made.append(after)
        hint += (
            f"\n{program} shell {_short(after.id)} opens what it left"
            f"\n{program} image diff {_short(before.id)} {_short(after.id)} compares them"
        )
    if any(each.is_new for each in made):
        sync(place.root)
    layout.change(lambda items: [*items, *(each.descriptor for each in made)])
    forget_failed(session, failed)  # from now on the image needs it
    return hint, before.id


def _shell(session: Session, failed: FailedState, image: str, error: LineFailed) -> None:
    from minibox.engine.container.start import run

    draft = failed.state.draft
    session.notice(f"{error}: a shell in the state before the line; exit ends the build")
    with RunMounts(session.place, session.options, lambda each: session.mount_files(failed.stage, each)) as mounts:
        mounted = mounts.prepare(failed.line.mounts, draft.absolute)
        options = replace(
            failed.options,
            image=image,
            command=("/bin/sh",),
            interactive=True,
            tty=True,
            env=(*failed.options.env, *mounted.env),
            **typed({"mount": mounted.mount, "tmpfs": mounted.tmpfs}),
        )
        run(session.place.home, options, storage_driver=session.place.driver)


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:ID_SHOWN]
