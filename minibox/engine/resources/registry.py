"""Pull and push images, log in to registries and out.

This module combines `minibox.image.registry` with config.toml, the user's credentials, and a storage driver to unpack
with.
"""

from __future__ import annotations

import os
from contextlib import contextmanager

from minibox import config
from minibox.base.home import Home
from minibox.engine.state import events
from minibox.errors import ImageNotFound, InvalidReference, RegistryError, StoreError, UsageError, suppress
from minibox.image.progress import silent
from minibox.image.reference import DEFAULT_DOMAIN, ImageName, Reference, parse
from minibox.image.store import ImageStore
from minibox.storage.drivers import snapshotter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from minibox.engine.spec.options import RunOptions
    from minibox.image.layout.image import ResolvedImage
    from minibox.image.layout.layout import Descriptor, Layout
    from minibox.image.platform import Platform
    from minibox.image.progress import OnProgress
    from minibox.image.registry.client import Client
    from minibox.image.registry.pull import Pulled

    OnPushed = Callable[[Reference, Descriptor], None]
    OnPulled = Callable[[Pulled], None]
    OnBegin = Callable[[Reference], None]

ATTEMPTS_AT_MIRRORS = 2
MOUNT_SOURCES_MAX = 10


class Registries:
    """The registry configuration of a user, for one command.

    Raises:
        ConfigError: config.toml has an invalid value.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        from minibox.image.registry.credentials import CredentialStore
        from minibox.image.registry.transport import Transport

        self.configured = config.load(environ)
        self.credentials = CredentialStore(environ)
        self.transport = Transport(environ)

    def clients(self, reference: Reference, actions: str, also_pull: Iterable[str] = ()) -> list[Client]:
        """Return clients for ``reference`` in the order to try them; a pull tries mirrors first."""
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
    home: Home,
    name: ImageName,
    *,
    environ: Mapping[str, str],
    platform: str = "",
    all_tags: bool = False,
    driver: str = "",
    on_begin: OnBegin = lambda _: None,
    on_progress: OnProgress = silent,
    on_pulled: OnPulled = lambda _: None,
) -> None:
    """Pull an image, or all images of a repository, into the store.

    Args:
        name: without a tag if ``all_tags``.
        platform: pull images for ``OS/ARCH[/VARIANT]``; "" for this machine's.
        driver: the storage driver to unpack for; "" for config.toml's.
        on_begin, on_pulled: called before and after each image.

    Raises:
        InvalidReference: ``name`` is only a digest.
        UsageError: ``platform`` is malformed.
        RegistryError: the registry can't be reached, refuses, or sends invalid data.
        StoreError: a layer can't be unpacked, or the disk is full.
    """
    from functools import partial

    from minibox.engine.files.rootfs_setup import unpack_sources
    from minibox.image.platform import parse_platform
    from minibox.image.registry.pull import Pull

    reference = name.reference
    if reference is None:
        raise InvalidReference(f"pull {name.text}: a digest alone names no registry", "write NAME@DIGEST")
    wanted: Platform | None = parse_platform(platform) if platform else None
    registries = Registries(environ)
    snapshots = snapshotter(home.root, driver or registries.configured.storage_driver)
    puller = Pull(
        ImageStore(home.root), registries.clients(reference, "pull"), partial(unpack_sources, snapshots),
        early=os.geteuid() == 0,  # others unpack in a forked process, which isn't safe next to threads
        platform=wanted, on_progress=on_progress,
    )  # fmt: skip
    try:
        tags = puller.tags() if _names_all_tags(name.text, reference, all_tags) else [reference.tag]
        if not tags:
            raise RegistryError(f"{reference.name} has no tags")
        for tag in tags:
            tagged = Reference(reference.domain, reference.path, tag, reference.digest)
            on_begin(tagged)
            pulled = puller.pull(tagged)
            events.note_image(home.runroot, tagged.familiar, tagged.familiar, "pull")
            on_pulled(pulled)
    finally:
        registries.transport.close()


def _find_for(store: ImageStore, name: ImageName, wanted: Platform | None) -> ResolvedImage:
    """Find an image in the store. If it is an index, choose the one for the platform ``wanted``."""
    if wanted is None:
        return store.find(name)
    from minibox.image.layout.manifest import find_image

    try:
        return find_image(store.layout, name, wanted) or store.find(name)
    except StoreError as error:  # an index has nothing for it
        raise ImageNotFound(str(error), error.hint) from error


def resolve_pulling(
    store: ImageStore,
    name: ImageName,
    options: RunOptions,
    pull_image: Callable[[ImageName, str], None] | None,
    missing: ImageNotFound | None = None,
) -> ResolvedImage:
    """Return the image for a container, and pull it first if ``options.pull`` and ``options.platform`` say so.

    Args:
        name: the image.
        pull_image: ``pull`` of `engine.container.start.run`.
        missing: the error if the caller has not found it in the store.

    Raises:
        ImageNotFound: the image is not in the store, and must not or can't be pulled.
        RegistryError: the pull failed.
    """
    from minibox.image.builtin.base import is_built_in
    from minibox.image.platform import parse_platform, platform_of, runs

    found, wanted = None, parse_platform(options.platform) if options.platform else None
    try:
        if missing is None:
            found = _find_for(store, name, wanted)
    except ImageNotFound as error:
        missing = error
    if found is not None and wanted and not runs(wanted, platform_of(found.config)):
        missing = ImageNotFound(
            f"image {name.text!r} in the store is for {platform_of(found.config)}, not {options.platform}"
        )
        found = None
    can_pull = options.pull != "never" and name.reference is not None and not is_built_in(name.reference)
    if found is not None and not (can_pull and options.pull == "always"):
        return found
    if missing is not None and not can_pull:
        raise missing
    try:
        if pull_image is not None:
            pull_image(name, options.platform)
        else:
            pull(Home(store.root), name, environ=os.environ, platform=options.platform)
    except RegistryError as error:
        if missing is None:
            raise
        in_store = (missing.hint or "").partition(";")[0] or None  # without the advice to pull it
        raise type(error)(f"{missing}, and pulling it failed: {error}", error.hint or in_store) from error
    return store.find(name)


def push(
    home: Home,
    name: ImageName,
    *,
    environ: Mapping[str, str],
    platform: str = "",
    all_tags: bool = False,
    all_platforms: bool = False,
    on_begin: OnBegin = lambda _: None,
    on_progress: OnProgress = silent,
    on_pushed: OnPushed = lambda _reference, _descriptor: None,
) -> None:
    """Push an image, or all images of a repository, from the store to its registry.

    Args:
        name: the image's name, here and there; without a tag if ``all_tags``.
        platform: push the index's image for ``OS/ARCH[/VARIANT]``; "" for this machine's.
        all_platforms: push all images of an index.
        on_begin: called before anything is sent.
        on_pushed: called for each image with its descriptor.

    Raises:
        UsageError: ``name`` or ``platform`` is malformed, or ``name`` has a digest.
        ImageNotFound: no image has that name, or it is for another platform.
        RegistryError: the registry can't be reached or refuses.
        StoreError: the image is damaged in the store.
    """
    from minibox.image.platform import parse_platform
    from minibox.image.registry.push import find_pushed
    from minibox.image.registry.push import push as push_image

    reference = name.reference
    if reference is None or reference.digest:
        raise UsageError(f"push {name.text}: push an image by name and tag, not by digest")
    wanted = parse_platform(platform) if platform else None
    layout = ImageStore(home.root).layout
    tags = (
        _tags_in_store(layout.names(), reference)
        if _names_all_tags(name.text, reference, all_tags)
        else [reference.tag]
    )
    with _pushing(layout, reference, environ) as (client, mounts):
        on_begin(reference)
        with layout.adding():  # what we read must not be collected either
            for tag in tags:
                tagged = Reference(reference.domain, reference.path, tag, "")
                descriptor = find_pushed(
                    layout, ImageName(str(tagged), tagged), platform=wanted, all_platforms=all_platforms
                )
                if descriptor is None:
                    raise ImageNotFound(f"image {tagged.familiar!r} is not in the store", "minibox images lists them")
                pushed = push_image(layout, client, descriptor, tag, mounts, on_progress)
                events.note_image(home.runroot, tagged.familiar, tagged.familiar, "push")
                on_pushed(tagged, pushed)


def push_artifact(layout: Layout, reference: Reference, descriptor: Descriptor, *, environ: Mapping[str, str]) -> None:
    """Push a manifest that needn't be an image's, with its blobs, as the tag of ``reference``. Call it inside
    `Layout.adding`.

    Raises:
        RegistryError: the registry can't be reached or refuses.
        StoreError: a blob in the store is missing or damaged.
    """
    from minibox.image.registry.push import push as push_image

    with _pushing(layout, reference, environ) as (client, mounts):
        push_image(layout, client, descriptor, reference.tag, mounts)


@contextmanager
def _pushing(
    layout: Layout, reference: Reference, environ: Mapping[str, str]
) -> Iterator[tuple[Client, dict[str, str]]]:
    """Give a ``with`` block a client to push with, and by digest the repositories that have blobs already."""
    from minibox.image.registry.push import mountable

    registries = Registries(environ)
    mounts = mountable(layout, reference)
    (client,) = registries.clients(reference, "pull,push", also_pull=sorted(set(mounts.values()))[:MOUNT_SOURCES_MAX])
    try:
        yield client, mounts
    finally:
        registries.transport.close()


def _names_all_tags(name: str, reference: Reference, all_tags: bool) -> bool:
    """Return whether to push all tags, as ``all_tags`` says; then ``name`` must not have a tag."""
    if all_tags and ("@" in name or ":" in name[name.rfind("/") + 1 :]):
        raise UsageError(f"--all-tags: {name} has a tag or digest", f"write only {reference.name}")
    return all_tags


def _tags_in_store(names: Iterable[str], reference: Reference) -> list[str]:
    tags = [name[len(reference.name) + 1 :] for name in names if name.startswith(f"{reference.name}:")]
    if not tags:
        raise ImageNotFound(f"no image of {reference.name} is in the store", "minibox images lists them")
    return sorted(tags)


def login(host: str, username: str, secret: str, *, environ: Mapping[str, str]) -> str:
    """Check a user name and password with a registry and store them; return the file or program that has them.

    Args:
        host: the registry as in references, ``HOST[:PORT]``; "" for docker.io.

    Raises:
        UsageError: ``host`` is malformed.
        RegistryError: the registry can't be reached, or rejects them; nothing is stored.
        ConfigError: they can't be stored.
    """
    from minibox.image.registry.client import Client
    from minibox.image.registry.credentials import Credential
    from minibox.image.registry.endpoint import endpoints
    from minibox.image.registry.transport import drop

    domain = registry_host(host)
    registries = Registries(environ)
    *_, endpoint = endpoints(Reference(domain, "", "", ""), registries.configured.registries, mirrors=False)
    client = Client(endpoint, registries.transport, lambda: Credential(username, secret), "")
    try:
        drop(client.request("GET", client.url(""), what=f"log in to {domain}"))
    finally:
        registries.transport.close()
    return registries.credentials.put(endpoint.credentials_for, username, secret)


def logout(host: str, *, environ: Mapping[str, str]) -> list[str]:
    """Remove what `login` stored for a registry; return the files and programs that had it.

    Raises:
        UsageError: ``host`` is malformed.
        ConfigError: a file can't be read or written.
    """
    from minibox.image.registry.credentials import CredentialStore

    return CredentialStore(environ).remove(registry_host(host))


def registry_host(text: str) -> str:
    """Return the host and port of the registry that ``text`` names; a URL is accepted, and "" means docker.io.

    Raises:
        UsageError: not a host.
    """
    host = text.removeprefix("https://").removeprefix("http://").split("/")[0]
    if not text or host in ("index.docker.io", "registry-1.docker.io"):
        return DEFAULT_DOMAIN
    with suppress(InvalidReference):
        if parse(f"{host}/name").domain == host:
            return host
    raise UsageError(
        f"{ascii(text)} is not a registry", "write its host, for example registry.example or localhost:5000"
    )
