"""Read and check a bundle: a directory with config.json."""

from __future__ import annotations

import os
from stat import S_ISDIR

from minibox.base.json_text import loads
from minibox.base.paths import absolute
from minibox.engine.spec import lsm
from minibox.errors import ConfigError, kernel_says, trying
from minibox.oci.schema import PROCESS, SPEC, checked
from minibox.plan.check import check as compiler_check
from minibox.plan.check import check_process as compiler_check_process
from minibox.plan.check import namespace_of
from minibox.plan.namespaces import joined
from minibox.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minibox.oci.runtime import Linux, Process, Spec

CONFIG = "config.json"
CONFIG_BYTES_MAX = 1 << 24
NO_ID = 0xFFFFFFFF  # (uid_t)-1


@record
class Bundle:
    """A bundle.

    Attributes:
        directory: absolute path.
        rootfs: absolute path of the root file system, without symlinks.
        spec: the content of config.json: types are checked, and required parts are filled in.
    """

    directory: str
    rootfs: str
    spec: Spec


def read_bundle(directory: str, config: str = "") -> Bundle:
    """Read the bundle in ``directory``; "" for the current one.

    Args:
        config: a file to read instead of the bundle's config.json; "" for that.

    Raises:
        ConfigError: config.json is missing, not JSON, or asks for something impossible.
    """
    directory = absolute(directory or ".")
    path = absolute(config) if config else f"{directory}/{CONFIG}"
    try:
        with open(path, "rb", 0) as file:
            data = file.read(CONFIG_BYTES_MAX)
    except FileNotFoundError:
        raise ConfigError(f"JSON specification file {path} not found") from None
    except OSError as error:
        raise ConfigError(f"read {path}: {kernel_says(error)}") from error
    spec = parse(data, CONFIG, SPEC)
    check(spec)
    for mount in spec.get("mounts", []):
        bind = mount.get("type") == "bind" or {"bind", "rbind"} & set(mount.get("options", []))
        if bind and mount.get("source"):
            mount["source"] = os.path.join(directory, mount["source"])
    return Bundle(directory, _rootfs(directory, spec), spec)


def read_process(path: str) -> Process:
    """Read the process of ``exec --process``. Raises as `read_bundle`."""
    with trying(ConfigError, f"read {path}"):
        with open(path, "rb", 0) as file:
            data = file.read(CONFIG_BYTES_MAX)
    process: Process = parse(data, os.path.basename(path), PROCESS)
    check_process(process, os.path.basename(path))
    return process


def check_process(process: Process, name: str) -> None:
    """Refuse an invalid process. Raises ConfigError."""
    compiler_check_process(process)
    lsm.check(process)
    _check_words(process, name)


def parse(data: bytes, name: str, kind: Any) -> Any:
    """Parse JSON text as a type of `oci.schema`.

    Raises:
        ConfigError: it isn't JSON, or has another type.
    """
    try:
        return checked(loads(data), kind, name)
    except ValueError as error:
        raise ConfigError(f"{name} is not JSON: {error}") from None
    except RecursionError:
        raise ConfigError(f"{name}: nested too deeply") from None


def check(spec: Spec) -> None:
    """Refuse an invalid Spec, and fill in empty parts that others rely on.

    Raises:
        ConfigError: the Spec is invalid.
    """
    version = spec["ociVersion"]
    numbers = version.partition("+")[0].partition("-")[0].split(".")  # semver.org; 1.3.0-dev is valid too
    if len(numbers) != 3 or not all(number.isdecimal() for number in numbers) or numbers[0] != "1":
        raise ConfigError(f"{CONFIG}: ociVersion {version!r} is not supported", "minibox-oci reads versions 1.0 to 1.3")
    compiler_check(spec)
    lsm.check(spec["process"], spec.get("linux"))
    _check_words(spec["process"], CONFIG)
    if "root" not in spec or not spec["root"]["path"]:
        raise ConfigError(f"{CONFIG}: root.path must not be empty")
    _check_user_namespace(spec.setdefault("linux", {}))
    _check_joined(spec)


def _check_words(process: Process, name: str) -> None:
    """Refuse values that don't fit into the kernel's structures, and fill in defaults. Raises ConfigError."""
    for word in (*process["args"], *process.get("env", ()), process["cwd"]):
        if "\0" in word:
            raise ConfigError(f"{name}: process has a null byte in {word!r}")
    user = process.setdefault("user", {"uid": 0, "gid": 0})  # the default is root, as in runc
    for number in (user["uid"], user["gid"], *user.get("additionalGids", ())):
        if not 0 <= number < NO_ID:
            raise ConfigError(f"{name}: process.user: {number} is not an id")


def _check_user_namespace(linux: Linux) -> None:
    found = {each["type"]: each.get("path", "") for each in linux.get("namespaces", [])}
    for mappings, field in ((linux.get("uidMappings"), "uidMappings"), (linux.get("gidMappings"), "gidMappings")):
        if mappings and "user" not in found:
            raise ConfigError(f"{CONFIG}: linux.{field} needs a user namespace")
        if not mappings and found.get("user") == "":
            raise ConfigError(f"{CONFIG}: the user namespace needs linux.{field}")
    if linux.get("timeOffsets") and "time" not in found:
        raise ConfigError(f"{CONFIG}: linux.timeOffsets needs a time namespace")


def _check_joined(spec: Spec) -> None:
    """Refuse settings for a namespace that is joined by path and is the host's: they would change the host."""
    settings = {f'sysctl "{name}"': namespace_of(name) for name in spec["linux"].get("sysctl", {})}
    settings |= {name: "uts" for name in ("hostname", "domainname") if spec.get(name)}
    if not settings or not (paths := joined(spec)):
        return
    from minibox.engine.process.exec import is_ours

    for name, kind in settings.items():
        if kind in paths and is_ours(kind, paths[kind]):
            raise ConfigError(f"{name} is not allowed in the hosts {kind} namespace")


def _rootfs(directory: str, spec: Spec) -> str:
    path = os.path.join(directory, spec["root"]["path"])
    try:
        found = os.path.realpath(path, strict=True)
        if not S_ISDIR(os.stat(found).st_mode):
            raise NotADirectoryError(20, "")
    except OSError as error:
        raise ConfigError(f"{CONFIG}: root.path {path}: {kernel_says(error)}") from None
    return found
