"""minibox for asyncio: the names of `minibox`, awaited. docs/api.md.

Waiting takes no thread: a process's end is a pidfd's, and its streams are pipes, both watched by the event loop. What
takes its time in the kernel, the start of a container, its removal and the copying of files, is done by the loop's default
executor, so that the loop goes on meanwhile. A task that is cancelled takes its container along.
"""

from minibox.aio.process import Process as Process
from minibox.aio.run import run as run
from minibox.aio.sandbox import Sandbox as Sandbox
from minibox.aio.sandbox import Snapshot as Snapshot
from minibox.api.process import DEVNULL as DEVNULL
from minibox.api.process import PIPE as PIPE
from minibox.api.process import STDOUT as STDOUT
