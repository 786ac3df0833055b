"""``build --shell``: after a RUN has failed, two images: the state before it, and with what it left on top.

They have no name, so that `minibox image prune` removes them. On a terminal a shell opens in the first one, with the
line's mounts and variables.
"""

from __future__ import annotations

import os

from minibox.build.image.make import make_image
from minibox.build.steps.mounts import RunMounts
from minibox.record import replace
from minibox.storage.snapshot import release_layer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.build.failure import FailedState, LineFailed
    from minibox.build.session import Session

ID_SHOWN = 12


def open_failed(session: Session, error: LineFailed, failed: FailedState) -> None:
    """Make the images, say in the error's hint how to open them, and open a shell on a terminal."""
    state = failed.state
    draft = state.draft.copy()
    draft.set_env([tuple(each.split("=", 1)) for each in failed.options.env])  # type: ignore[misc]
    layout, place = session.store.layout, session.place
    before = make_image(place, layout, draft, state.base, state.layers, state.below)
    layout.change(lambda items: [*items, before.descriptor])
    hint = f"minibox shell {_short(before.id)} opens the state before the line"
    if failed.layer:
        after = make_image(place, layout, draft, state.base, (*state.layers, failed.layer), state.below)
        layout.change(lambda items: [*items, after.descriptor])
        release_layer(place.root, place.driver, failed.layer)  # from now on the image needs it
        hint += (
            f"\nminibox shell {_short(after.id)} opens what it left"
            f"\nminibox image diff {_short(before.id)} {_short(after.id)} compares them"
        )
    error.hint = hint if not error.hint else f"{error.hint}\n{hint}"
    if os.isatty(0) and os.isatty(2):
        _shell(session, failed, before.id, error)


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
            mount=mounted.mount,
            tmpfs=mounted.tmpfs,
            env=(*failed.options.env, *mounted.env),
        )
        run(session.place.home, options, storage_driver=session.place.driver)


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:ID_SHOWN]
