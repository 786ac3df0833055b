"""Start an existing container again, with its options, image and files."""

from __future__ import annotations

from minibox.engine.container.run import Run
from minibox.engine.files import rootfs_setup
from minibox.engine.spec.options import from_given
from minibox.engine.state import containers
from minibox.errors import ConfigError, ImageNotFound
from minibox.image.store import ImageStore
from minibox.record import replace
from minibox.storage.snapshot import read_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from minibox.base.home import Home
    from minibox.engine.container.run import Note
    from minibox.engine.spec.options import RunOptions
    from minibox.engine.state.claim import Claim


def run_again(
    home: Home,
    claim: Claim,
    on_note: Note | None,
    changed: Callable[[RunOptions], RunOptions] = lambda options: options,
) -> Run:
    """Make the next run of a container that you have claimed.

    Args:
        changed: changes its options.

    Raises:
        ConfigError: its state is damaged.
        ImageNotFound: its image was removed.
    """
    found = containers.read(home.root, claim.id)
    if not isinstance(found.get("Options"), dict):
        name = found["Name"] or claim.id[:12]
        if found.get("Newer"):
            raise ConfigError(f"container {name} can't be started: {found['Error']}", "use a newer minibox")
        raise ConfigError(f"container {name} can't be started: its state is damaged",
                          "minibox export saves what it wrote, minibox rm removes it")  # fmt: skip
    options = changed(from_given(found["Options"]))
    store = ImageStore(home.root)
    try:
        image = store.resolve(found["ImageDigest"])
    except ImageNotFound:
        raise ImageNotFound(
            f"start container {found['Name']}: its image {options.image} was removed",
            "pull or build the image again; minibox export saves what the container wrote",
        ) from None
    storage = rootfs_setup.restored_snapshotter(home.root, claim.id, str(found.get("Driver") or ""), image.chain_ids)
    if kept := read_record(home.root, claim.id):  # it may be based on a snapshot of that image
        image = replace(image, chain_ids=kept[1])
    claim.note_image(options.image, image)
    return Run(home, options, store, storage, image, claim, on_note, new=False)
