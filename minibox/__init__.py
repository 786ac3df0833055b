"""Run containers from your own process, without a daemon: ``minibox.run("base", ["echo", "hi"])``. See docs/api.md.

Importing minibox is cheap: each name is imported when you first use it.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minibox import aio as aio
    from minibox import linux as linux
    from minibox.api.image import Image as Image
    from minibox.api.image_build import ImageBuild as ImageBuild
    from minibox.api.network import Network as Network
    from minibox.api.options import ContainerOptions as ContainerOptions
    from minibox.api.process import DEVNULL as DEVNULL
    from minibox.api.process import PIPE as PIPE
    from minibox.api.process import STDOUT as STDOUT
    from minibox.api.process import Popen as Popen
    from minibox.api.run import run as run
    from minibox.api.sandbox import Sandbox as Sandbox
    from minibox.api.sandbox import Snapshot as Snapshot
    from minibox.api.sandboxed import sandboxed as sandboxed
    from minibox.engine.process.completed import CalledProcessError as CalledProcessError
    from minibox.engine.process.completed import CompletedRun as CompletedRun
    from minibox.errors import CommandNotExecutable as CommandNotExecutable
    from minibox.errors import CommandNotFound as CommandNotFound
    from minibox.errors import ContainerNotRunning as ContainerNotRunning
    from minibox.errors import ImageInUse as ImageInUse
    from minibox.errors import ImageNotFound as ImageNotFound
    from minibox.errors import IsolationWarning as IsolationWarning
    from minibox.errors import LimitExceeded as LimitExceeded
    from minibox.errors import MiniboxError as MiniboxError
    from minibox.errors import NetworkError as NetworkError
    from minibox.errors import RegistryError as RegistryError
    from minibox.errors import RemoteError as RemoteError
    from minibox.errors import SandboxCrashed as SandboxCrashed
    from minibox.errors import StoreError as StoreError
    from minibox.errors import TimedOut as TimedOut
    from minibox.errors import TimeoutExpired as TimeoutExpired
    from minibox.errors import Unsupported as Unsupported
    from minibox.errors import UntrustedResult as UntrustedResult
    from minibox.errors import UsageError as UsageError
    from minibox.outcome import Usage as Usage
    from minibox.outcome import Verdict as Verdict
else:
    from sys import modules

    _WHERE = {
        "ContainerOptions": "api.options",
        "DEVNULL": "api.process",
        "Image": "api.image",
        "ImageBuild": "api.image_build",
        "Network": "api.network",
        "PIPE": "api.process",
        "STDOUT": "api.process",
        "Popen": "api.process",
        "run": "api.run",
        "Sandbox": "api.sandbox",
        "Snapshot": "api.sandbox",
        "sandboxed": "api.sandboxed",
        "CompletedRun": "engine.process.completed",
        "CalledProcessError": "engine.process.completed",
        "Usage": "outcome",
        "Verdict": "outcome",
        "CommandNotExecutable": "errors",
        "CommandNotFound": "errors",
        "ContainerNotRunning": "errors",
        "ImageInUse": "errors",
        "ImageNotFound": "errors",
        "IsolationWarning": "errors",
        "MiniboxError": "errors",
        "NetworkError": "errors",
        "LimitExceeded": "errors",
        "RemoteError": "errors",
        "SandboxCrashed": "errors",
        "RegistryError": "errors",
        "StoreError": "errors",
        "TimedOut": "errors",
        "TimeoutExpired": "errors",
        "Unsupported": "errors",
        "UntrustedResult": "errors",
        "UsageError": "errors",
    }

    def __getattr__(name):
        """Import a public name (PEP 562). Hidden from type checkers, which would accept every name."""
        if name not in (*_WHERE, "aio", "linux"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        if "gevent.monkey" in modules or "eventlet.patcher" in modules:
            import_module("minibox.api.greenlets").use()
        if name in ("aio", "linux"):
            return import_module(f"{__name__}.{name}")

        found = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
        globals()[name] = found
        return found

    def __dir__():
        return sorted({*globals(), *_WHERE})
