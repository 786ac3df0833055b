"""Run minibox in the programs that docs/embedding.md has recipes for, as they are on PyPI: `make third-party`.

Celery's workers, by fork and by gevent, uvicorn's workers, and a notebook. Needs root and the package index; a minute.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = ("celery", "uvicorn", "nbclient", "ipykernel", "cloudpickle", "gevent")
PATIENCE_S = 60.0

TASKS = """
from celery import Celery

import minibox

places = {"data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control"}
app = Celery("tasks", broker="filesystem://", backend="file://results")
app.conf.broker_transport_options = places

@app.task
def square(number):
    script = f"echo $(({number} * {number}))"
    done = minibox.run("base", ["sh", "-c", script], capture_output=True, text=True, memory="64m", timeout=30)
    return int(done.stdout)
"""

SERVER = """
import os

from minibox import aio

async def app(scope, receive, send):
    assert scope["type"] == "http"
    done = await aio.run("base", ["echo", scope["path"]], capture_output=True, timeout=30)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"worker", str(os.getpid()).encode())]})
    await send({"type": "http.response.body", "body": done.stdout})
"""

NOTEBOOK = """
import nbclient, nbformat

cells = [
    "import os, minibox",
    "def twice(number):\\n    return 2 * number",
    "@minibox.sandboxed(memory='256m')\\ndef inside(number):\\n    return twice(number), os.getpid()",
    "number, pid = inside(21)\\nassert pid != os.getpid()\\nprint(number)",
    "print(minibox.run('base', ['echo', 'hi'], capture_output=True, text=True).stdout)",
    "with minibox.Sandbox('base') as box:\\n    box.run(['true'], check=True)",
]
book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
done = nbclient.NotebookClient(book, timeout=60, kernel_name="python3").execute()
print("".join(output.get("text", "") for cell in done.cells for output in cell.outputs))
"""


def main() -> int:
    if os.geteuid() != 0:
        print("this needs root", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="minibox-programs-") as name:
        directory = Path(name)
        libraries = directory / "libraries"
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--target", libraries, *PACKAGES], check=True)
        environment = {
            **os.environ,
            "MINIBOX_ROOT": f"{directory}/root",
            "MINIBOX_RUNROOT": f"{directory}/run",
            "PYTHONPATH": f"{libraries}:{CHECKOUT}",
            "JUPYTER_PATH": f"{libraries}/share/jupyter",
            "JUPYTER_PLATFORM_DIRS": "1",
            "HOME": name,
        }
        for pool in ("prefork", "gevent"):
            celery(directory / pool, environment, pool)
            print(f"celery -P {pool}: passed")
        uvicorn(directory / "uvicorn", environment)
        print("uvicorn --workers 2: passed")
        notebook(directory / "notebook", environment)
        print("a notebook: passed")
    return 0


def celery(directory: Path, environment: dict[str, str], pool: str) -> None:
    """A worker gets eight tasks by files, and its answers come by files."""
    for name in ("queue", "control", "results"):
        (directory / name).mkdir(parents=True)
    (directory / "tasks.py").write_text(TASKS)
    words = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-P", pool, "-c", "2", "-l", "warning"]
    ask = "import tasks; print([each.get(timeout=60) for each in [tasks.square.delay(n) for n in range(8)]])"
    with subprocess.Popen(words, cwd=directory, env={**environment, "C_FORCE_ROOT": "1"}) as worker:
        try:
            asked = subprocess.run(
                [sys.executable, "-c", ask], cwd=directory, env=environment, capture_output=True, text=True, check=False
            )
        finally:
            worker.terminate()
    assert asked.stdout == f"{[n * n for n in range(8)]}\n", asked.stderr


def uvicorn(directory: Path, environment: dict[str, str]) -> None:
    """Two workers answer until each of them has been seen."""
    directory.mkdir()
    (directory / "server.py").write_text(SERVER)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [
        sys.executable,
        "-m",
        "uvicorn",
        "server:app",
        "--workers",
        "2",
        "--port",
        str(port),
        "--log-level",
        "warning",
    ]
    seen = set()

    def asked() -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{port}/hello", timeout=30) as answer:
                assert answer.read() == b"/hello\n"
                seen.add(answer.headers["worker"])
        except URLError:
            pass  # it doesn't listen yet
        return len(seen) == 2

    with subprocess.Popen(words, cwd=directory, env=environment) as server:
        try:
            _until(asked, "both workers have answered")
        finally:
            server.terminate()
    assert server.returncode in (0, -15), server.returncode


def notebook(directory: Path, environment: dict[str, str]) -> None:
    directory.mkdir()
    words = [sys.executable, "-c", NOTEBOOK]
    done = subprocess.run(words, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["42", "hi"], done.stdout + done.stderr


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
