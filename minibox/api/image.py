"""`minibox.Image`: the images in the store."""

from __future__ import annotations

import os
from typing import Any, Unpack

from minibox.api.arguments import BUILD, checked
from minibox.api.options import ContainerOptions
from minibox.api.place import Place, place
from minibox.errors import StoreError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from minibox.api.image_build import BuildKeywords, DockerfileKeywords
    from minibox.build.events import Event
    from minibox.image.layout.inventory import StoredImage


class Image:
    """An image in the store. The attributes don't change when the store does.

    Attributes:
        id: ``sha256:`` and the digest of its config.
        names: its names, such as ``debian:12``, sorted; () if it has none.
        size: the disk space of its layers in bytes, including layers that it shares with other images.
        config: its OCI image config, as parsed JSON.
    """

    def __init__(self, where: Place, stored: StoredImage, size: int) -> None:
        """Don't call this; use `get`, `list`, `pull` or `build`."""
        self._where = where
        self.id = stored.id
        self.names: tuple[str, ...] = tuple(name.familiar for name in stored.names)
        self.size = size
        self.config: dict[str, Any] = stored.config

    @classmethod
    @checked()
    def pull(
        cls,
        reference: str,
        *,
        platform: str = "",
        root: str | os.PathLike[str] | None = None,
        runroot: str | os.PathLike[str] | None = None,
        storage_driver: str = "",
    ) -> Image:
        """Download an image from a registry and unpack it. Uses the mirrors of config.toml and the user's logins.

        Args:
            reference: ``debian:12``, ``quay.io/org/name@sha256:...``.
            platform: ``OS/ARCH[/VARIANT]``; "" for this machine's.
            root, runroot, storage_driver: as in `ContainerOptions`; the same for all methods.

        Raises:
            RegistryError: the registry can't be reached, refuses the request, or sends an invalid answer.
            MiniboxError: anything else.
        """
        from minibox.engine.resources import registry
        from minibox.image.reference import parse_name

        where = _place(root, runroot, storage_driver)
        registry.pull(
            where.home, parse_name(reference), environ=os.environ, platform=platform, driver=where.storage_driver
        )
        return cls._get(where, reference)

    @classmethod
    @checked(BUILD)
    def build(
        cls,
        source: str | os.PathLike[str],
        reference: str = "",
        *,
        on_event: Callable[[Event], object] | None = None,
        command: Sequence[str] | None = None,
        entrypoint: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        workdir: str = "",
        user: str = "",
        labels: Mapping[str, str] | None = None,
        root: str | os.PathLike[str] | None = None,
        runroot: str | os.PathLike[str] | None = None,
        storage_driver: str = "",
        **options: Unpack[DockerfileKeywords],
    ) -> Image:
        """Make an image: from a Dockerfile if the directory ``source`` has one (or a Containerfile), or if you name it
        with ``file``; else an image of one layer that has the files of ``source``.

        Args:
            on_event: called with each event of a Dockerfile's build; `ImageBuild` gives them as an iterator.
            options: for a Dockerfile: those of `ImageBuild`.
            source: the root file system: a directory, whose owners and modes are kept, or a tar archive, plain or
                compressed with gzip, zstd, bzip2 or xz.
            reference: the name of the new image.
            command, entrypoint, env, workdir, user, labels: the defaults for its containers.

        Raises:
            UsageError: ``reference`` is malformed.
            StoreError: the source can't be read, the tar is damaged, or the disk is full.
            DockerfileError, BuildError: a Dockerfile has a mistake, or one of its lines has failed.
        """
        from minibox.engine.resources.image_build import ImageProcess, build

        where = _place(root, runroot, storage_driver)
        if options.get("file") or _has_dockerfile(source):
            if command or entrypoint or env or workdir or user:
                raise UsageError("command, entrypoint, env, workdir and user are for root file systems",
                                 "write them in the Dockerfile")  # fmt: skip
            return cls._built(where, source, reference, on_event, dict(labels or {}), options)
        if options:
            raise UsageError(f"{', '.join(options)}: only for a Dockerfile, and {os.fspath(source)!r} has none")
        process = ImageProcess(
            tuple(command or ()), tuple(entrypoint or ()), dict(env or {}), workdir, user, dict(labels or {})
        )
        made = build(where.home, os.fspath(source), reference, process, driver=where.storage_driver)
        return cls._get(where, made)

    @classmethod
    def _built(
        cls,
        where: Place,
        source: str | os.PathLike[str],
        reference: str,
        on_event: Callable[[Event], object] | None,
        labels: dict[str, str],
        options: DockerfileKeywords,
    ) -> Image:
        from minibox.api.image_build import ImageBuild

        given: BuildKeywords = {
            **options,
            "root": where.home.root,
            "runroot": where.home.runroot,
            "storage_driver": where.storage_driver,
            "labels": labels,
        }
        if reference:
            given["tags"] = (reference, *options.get("tags", ()))
        build = ImageBuild(source, **given)
        try:
            for event in build:
                if on_event:
                    on_event(event)
        except BaseException:
            build.cancel()
            raise
        return cls._get(where, build.result())

    @classmethod
    @checked()
    def get(
        cls,
        reference: str,
        *,
        root: str | os.PathLike[str] | None = None,
        runroot: str | os.PathLike[str] | None = None,
    ) -> Image:
        """Return an image by its name, its digest, or the beginning of its id.

        Raises:
            ImageNotFound: the store has no such image.
            StoreError: the image is damaged.
        """
        return cls._get(_place(root, runroot, ""), reference)

    @classmethod
    @checked()
    def list(
        cls, *, root: str | os.PathLike[str] | None = None, runroot: str | os.PathLike[str] | None = None
    ) -> list[Image]:
        """Return all images, newest first. Damaged images are left out; ``minibox system check`` reports them.

        Raises:
            StoreError: the store is damaged.
        """
        from minibox.engine.upkeep.images import disk_usage
        from minibox.image.layout.inventory import inventory
        from minibox.image.layout.layout import Layout

        where = _place(root, runroot, "")
        stored = inventory(Layout(where.home.root))
        sizes = [each.size_bytes for each in disk_usage(where.home.root, stored).images]
        return [cls(where, each, size) for each, size in zip(stored, sizes) if not each.error]

    @classmethod
    def _get(cls, where: Place, reference: str) -> Image:
        from minibox.engine.upkeep.images import disk_usage
        from minibox.image.layout.inventory import find, inventory
        from minibox.image.store import ImageStore

        store = ImageStore(where.home.root)
        store.resolve(reference)  # creates the built-in image `base`
        images = inventory(store.layout)
        stored, _ = find(images, reference)
        if stored.error:
            raise StoreError(stored.error, stored.hint or None)
        size = next(
            used.size_bytes for each, used in zip(images, disk_usage(where.home.root, images).images) if each is stored
        )
        return cls(where, stored, size)

    @checked()
    def tag(self, reference: str) -> None:
        """Give the image another name.

        Raises:
            InvalidReference: ``reference`` is malformed, or has a digest.
            ImageNotFound: the image has been removed.
        """
        from minibox.engine.upkeep.images import tag

        tag(self._where.home, self.id, reference)
        self.names = self._get(self._where, self.id).names

    def history(self) -> Sequence[dict[str, Any]]:
        """Return the build steps, newest first: ``created_by``, ``created_s``, ``size_bytes``, ``comment``."""
        from minibox.engine.upkeep.images import history_of

        return history_of(self._where.home.root, self.id)

    @checked()
    def remove(self, *, force: bool = False) -> None:
        """Remove the image and all its names.

        Args:
            force: remove it even if it has several names, or if stopped containers use it.

        Raises:
            ImageInUse: a container uses it.
            ImageNotFound: it has been removed already.
        """
        from minibox.engine.files import background_removal
        from minibox.engine.upkeep.images import remove

        background_removal.finish()  # ended containers of `minibox.run` that are still being removed would keep the image in use
        remove(self._where.home, self.id, force=force)

    def __repr__(self) -> str:
        return f"<minibox.Image {', '.join(self.names) or self.id}>"


def _has_dockerfile(source: str | os.PathLike[str]) -> bool:
    return any(os.path.isfile(os.path.join(source, name)) for name in ("Dockerfile", "Containerfile"))


def _place(root: str | os.PathLike[str] | None, runroot: str | os.PathLike[str] | None, storage_driver: str) -> Place:
    options: ContainerOptions = {}
    if root is not None:
        options["root"] = root
    if runroot is not None:
        options["runroot"] = runroot
    if storage_driver:
        options["storage_driver"] = storage_driver
    return place(options)
