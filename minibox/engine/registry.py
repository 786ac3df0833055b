"""Images between the store and registries: pull, push, log in and out.

What `minibox.image.registry` does is put together here with config.toml, the credentials of who asks, and a
storage driver to unpack with.
"""

from __future__ import annotations

import os

from minibox import config
from minibox.errors import RegistryError, UsageError
from minibox.image.progress import silent
from minibox.image.reference import DEFAULT_TAG, parse
from minibox.image.store import ImageStore
from minibox.record import replace
from minibox.storage import snapshotter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from minibox.image.layer import LayerSource
    from minibox.image.platform import Platform
    from minibox.image.progress import OnProgress
    from minibox.image.reference import Reference
    from minibox.image.registry.client import Client
    from minibox.image.registry.pull import Pulled

    OnPulled = Callable[[Pulled], None]
    OnBegin = Callable[[Reference], None]

ATTEMPTS_AT_MIRRORS = 2


class Registries:
    """What is known of registries by who has this environment: for one command.

    Raises:
        ConfigError: config.toml says what can't be meant.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        from minibox.image.registry.credentials import CredentialStore
        from minibox.image.registry.transport import Transport

        self.configured = config.load(environ)
        self.credentials = CredentialStore(environ)
        self.transport = Transport(environ)

    def clients(self, reference: Reference, actions: str, also_pull: Iterable[str] = ()) -> list[Client]:
        """Who to ask for ``reference``, in this order: when only pulling, its mirrors first."""
        from functools import partial

        from minibox.image.registry.client import ATTEMPTS, Client
        from minibox.image.registry.endpoint import endpoints

        found = endpoints(reference, self.configured.registries, mirrors=actions == "pull")
        return [
            Client(
                endpoint, self.transport,
                partial(self.credentials.get, endpoint.credentials_for, endpoint.repository),
                actions, also_pull=also_pull,
                attempts=ATTEMPTS if endpoint is found[-1] else ATTEMPTS_AT_MIRRORS,
            )
            for endpoint in found
        ]  # fmt: skip


def pull(
    name: str,
    *,
    root: str,
    environ: Mapping[str, str],
    platform: str = "",
    all_tags: bool = False,
    driver: str = "",
    on_begin: OnBegin = lambda _: None,
    on_progress: OnProgress = silent,
    on_pulled: OnPulled = lambda _: None,
) -> None:
    """Bring an image, or all images of a repository, into the store.

    Args:
        name: a reference; without a tag when ``all_tags``.
        platform: whose image is wanted, ``OS/ARCH[/VARIANT]``; "" for this machine's.
        driver: the storage driver to unpack for; "" for config.toml's.
        on_begin, on_pulled: called before and after each image.

    Raises:
        UsageError: ``name`` or ``platform`` is malformed.
        RegistryError: the registry can't be reached, refuses, or sends what is wrong.
        StoreError: a layer can't be unpacked, or the disk is full.
    """
    from minibox.image.platform import parse_platform
    from minibox.image.registry.pull import Pull

    reference = parse(name)
    if all_tags and name_has_tag(name):
        raise UsageError(
            "--all-tags is for a name without a tag or digest", f"minibox pull --all-tags {reference.name}"
        )
    wanted: Platform | None = parse_platform(platform) if platform else None
    registries = Registries(environ)
    snapshots = snapshotter(root, driver or registries.configured.storage_driver)

    def unpack(sources: Sequence[LayerSource], on_unpacked: Callable[[str], None]) -> None:
        if snapshots.is_unpacked(tuple([source.chain_id for source in sources])):
            return
        if os.geteuid() == 0:
            snapshots.unpack(sources, on_unpacked)
            return
        from minibox.engine.user_namespace import run_inside

        run_inside(lambda: snapshots.unpack(sources))

    puller = Pull(
        ImageStore(root), registries.clients(reference, "pull"), unpack,
        early=os.geteuid() == 0,  # a process forked beside threads is asking for trouble
        platform=wanted, on_progress=on_progress,
    )  # fmt: skip
    try:
        tags = puller.tags() if all_tags else [reference.tag]
        if not tags:
            raise RegistryError(f"{reference.name} has no tags")
        for tag in tags:
            tagged = replace(reference, tag=tag)
            on_begin(tagged)
            on_pulled(puller.pull(tagged))
    finally:
        registries.transport.close()


def name_has_tag(name: str) -> bool:
    """Whether the user wrote a tag or a digest himself."""
    return "@" in name or ":" in name[name.rfind("/") + 1 :]


__all__ = ["DEFAULT_TAG", "Registries", "name_has_tag", "pull"]
