"""The mounts and volumes that the user and the image ask for."""

from __future__ import annotations

from posixpath import normpath

from minibox.base.paths import from_root
from minibox.docker_words.mounts import PROPAGATION, MountRequest, destination_path
from minibox.engine.spec.host import HostFacts
from minibox.engine.spec.options import UserMounts, Volume
from minibox.errors import UsageError, kernel_says

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.engine.spec.options import RunOptions
    from minibox.oci.runtime import Mount


def user_mounts(
    options: RunOptions,
    config: dict[str, Any],
    host: HostFacts,
    *,
    root: str,
    container_id: str,
    idmap_binds: bool = False,
) -> UserMounts:
    """Return all requested mounts, checked. A parent directory comes before the directories below it.

    Args:
        config: the image's, from `checked_config`.
        root: the directory with ``volumes``.
        container_id: names of anonymous volumes are derived from it.
        idmap_binds: give bind mounts and volumes the ``idmap`` option, so that files have the same owner inside and
            outside a user namespace; ``noidmap`` leaves it out.

    Raises:
        UsageError: two mounts at one destination, or a bind source that doesn't exist.
    """
    wanted = [*options.volume, *options.mount, *options.tmpfs]
    taken: dict[str, str] = {}
    for request in wanted:
        if request.destination in taken:
            raise UsageError(
                f"duplicate mount point {request.destination!r}: {taken[request.destination]!r} and {str(request)!r}",
                hint="remove one of them",
            )
        taken[request.destination] = str(request)
    for path in sorted(config.get("Volumes") or ()):
        word = f"the image's volume {path}"
        path = destination_path(path, word)
        if path not in taken:
            taken[path] = word
            wanted.append(MountRequest("volume", "", path, (), word))
    wanted.sort(key=lambda request: (request.destination.count("/"), request.destination))
    mounts: list[Mount] = []
    volumes = []
    for request in wanted:
        if request.kind == "tmpfs":
            mounts.append(
                {
                    "destination": request.destination,
                    "type": "tmpfs",
                    "source": "tmpfs",
                    "options": list(request.options),
                }
            )
            continue
        source = request.source
        if request.kind == "volume":
            volume = _volume(request, root, container_id)
            volumes.append(volume)
            source = volume.path
        else:
            source = normpath(from_root(source, host.cwd))
            _check_source(source, host)
        mounts.append(_bind(source, request, idmap_binds))
    return UserMounts(tuple(mounts), tuple(volumes))


def _volume(request: MountRequest, root: str, container_id: str) -> Volume:
    name = request.source
    if not name:
        from _blake2 import blake2b

        name = blake2b(f"{container_id}\0{request.destination}".encode(errors="replace"), digest_size=32).hexdigest()
    # An anonymous volume lies in the container's directory, so that it is removed with it.
    place = f"{root}/volumes" if request.source else f"{root}/containers/{container_id}/volumes"
    return Volume(
        name, f"{place}/{name}/_data", request.destination, not request.source, "nocopy" not in request.options
    )


def _check_source(source: str, host: HostFacts) -> None:
    try:
        host.stat(source)
    except FileNotFoundError as error:
        raise UsageError(
            f"bind source {source!r} does not exist",
            hint="make it first, or use -v NAME:DESTINATION for a volume",
        ) from error
    except (OSError, ValueError) as error:
        said = kernel_says(error) if isinstance(error, OSError) else str(error)
        raise UsageError(f"can't read bind source {source!r}: {said}") from error


def _bind(source: str, request: MountRequest, idmap: bool) -> Mount:
    given = request.options
    options = ["bind" if "bind" in given else "rbind"]
    options.append(next((word for word in given if word in PROPAGATION), "rprivate"))
    options += [word for word in given if word in ("nosuid", "nodev", "noexec")]
    if "ro" in given:
        # Docker since 25: mounts below the source are read-only as well.
        options.append("ro" if "bind" in given or "ro-top" in given else "rro")
    if idmap and "noidmap" not in given:
        options.append("idmap")
    return {"destination": request.destination, "type": "bind", "source": source, "options": options}
