"""List the containers of a root (`list`) and the processes of one (`ps`)."""

from __future__ import annotations

import os

from minibox.engine.oci.state import Container, containers, summary
from minibox.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def listed(root: str, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return runc's summary of each container; for ``tell`` see `containers`."""
    return [summary(container, _owner(container.directory)) for container in containers(root, tell)]


def matching(root: str, pattern: str) -> list[str]:
    """Return the ids of containers that a regular expression matches anywhere, as crun's --regex.

    Raises:
        UsageError: the expression is invalid.
    """
    import re

    try:
        wanted = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"invalid regular expression {pattern!r}: {error}") from None
    return [container.id for container in containers(root) if wanted.search(container.id)]


def processes_of(root: str, container_id: str) -> set[int]:
    """Return the processes of a container; without a cgroup, those in its pid namespace.

    Raises:
        ContainerNotFound: there is no such container.
    """
    from minibox.engine.container.processes import of_namespace

    container = Container.find(root, container_id)
    found = container.group().pids()
    return found or (of_namespace(container.pid) if container.pid else set())


def _owner(directory: str) -> str:
    import pwd

    try:
        uid = os.stat(directory).st_uid
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"
    except OSError:
        return ""
