"""The kernel's interfaces and our C programs, one module each. What combines them belongs in `minibox.engine`.

For lessons it offers the system calls that make a container, each with its errors in its docstring:
``help(minibox.linux.unshare)``. They are imported when they are used.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox.linux.calls.cgroups import ControlGroup as ControlGroup
    from minibox.linux.calls.flags import *  # noqa: F403
    from minibox.linux.calls.mounts import mknod as mknod
    from minibox.linux.calls.mounts import mount as mount
    from minibox.linux.calls.mounts import pivot_root as pivot_root
    from minibox.linux.calls.mounts import umount as umount
    from minibox.linux.calls.namespaces import clone as clone
    from minibox.linux.calls.namespaces import sethostname as sethostname
    from minibox.linux.calls.namespaces import setns as setns
    from minibox.linux.calls.namespaces import unshare as unshare
    from minibox.linux.calls.privileges import capget as capget
    from minibox.linux.calls.privileges import capset as capset
    from minibox.linux.calls.privileges import drop_bounding as drop_bounding
    from minibox.linux.calls.privileges import no_new_privs as no_new_privs
    from minibox.linux.calls.privileges import seccomp_filter as seccomp_filter
else:
    _WHERE = {
        "ControlGroup": "cgroups",
        "capget": "privileges",
        "capset": "privileges",
        "clone": "namespaces",
        "drop_bounding": "privileges",
        "mknod": "mounts",
        "mount": "mounts",
        "no_new_privs": "privileges",
        "pivot_root": "mounts",
        "seccomp_filter": "privileges",
        "sethostname": "namespaces",
        "setns": "namespaces",
        "umount": "mounts",
        "unshare": "namespaces",
    }
    _FLAGS = ("CLONE_NEW", "MS_", "MNT_", "UMOUNT_")

    def __getattr__(name):
        """Import a call or a flag (PEP 562)."""
        module = _WHERE.get(name) or ("flags" if name.startswith(_FLAGS) else "")
        if module:
            from importlib import import_module

            found = getattr(import_module(f"{__name__}.calls.{module}"), name, None)
            if found is not None:
                globals()[name] = found
                return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        from minibox.linux.calls import flags

        return sorted({*globals(), *_WHERE, *(name for name in vars(flags) if name.startswith(_FLAGS))})
