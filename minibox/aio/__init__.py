"""The Python API for asyncio: the same names as in `minibox`, to be awaited. What isn't about the event loop belongs in
`minibox.api`. See docs/api.md.

Waiting needs no thread: the event loop watches the process's pidfd and its pipes. The loop's default executor does
what blocks in the kernel: starting and removing containers, and copying files. Cancelling a task also ends its container.
"""

from minibox.aio.build import build as build
from minibox.aio.process import Process as Process
from minibox.aio.run import run as run
from minibox.aio.sandbox import Sandbox as Sandbox
from minibox.aio.sandbox import Snapshot as Snapshot
from minibox.api.process import DEVNULL as DEVNULL
from minibox.api.process import PIPE as PIPE
from minibox.api.process import STDOUT as STDOUT
