"""A judge of C programs by people whom nobody trusts: compiles each, runs it on an input, and says what became of it.

Try it: ``python examples/judge.py examples/hostile/*.c``.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import minibox

SYSTEM = [(path, path, "ro,noidmap") for path in ("/usr", "/lib", "/lib64", "/bin") if os.path.isdir(path)]
COMMAND = ["gcc", "-O1", "-static", "-pthread", "-o", "program", "program.c"]
# The compiler sees the system's programs and libraries, and no other file. A hostile source can make it very busy.
COMPILER = minibox.ContainerOptions(
    mounts=SYSTEM, env={"PATH": "/usr/bin:/bin"}, cwd="/", cap_drop=["ALL"],
    memory="512m", processes=32, cpu_time=20, wall_time=60, output="64k", disk="64m", file_size="16m",
)  # fmt: skip
# The program is alone in an empty file system.
PROGRAM = minibox.ContainerOptions(
    init=True, cap_drop=["ALL"], security_opt=["no-new-privileges"],
    memory="64m", processes=16, cpu_time=1, wall_time=8, output="64k", disk="8m", file_size="4m",
)  # fmt: skip


def compiled(source: str, binary: Path) -> str:
    """Compile; "" for success, else what the compiler said."""
    with minibox.Sandbox("scratch", **COMPILER) as box:
        box.write_file("/program.c", source)
        done = box.run(COMMAND, capture_output=True, text=True, errors="replace")
        if done.returncode:
            return done.stderr or done.verdict.summary
        binary.write_bytes(box.read_file("/program"))
        binary.chmod(0o755)
    return ""


def judged(source: str, given: bytes = b"") -> tuple[str, str, bytes]:
    """A verdict, in one word and in a sentence, and the output."""
    with tempfile.TemporaryDirectory() as directory:
        binary = Path(directory, "program")
        if complaint := compiled(source, binary):
            return "compile-error", complaint.splitlines()[0], b""
        options = PROGRAM | {"mounts": [(binary, "/program", "ro")]}
        done = minibox.run("scratch", ["/program"], input=given, capture_output=True, **options)
    verdict, usage = done.verdict, done.usage
    spent = f"{usage.cpu_s or 0:.2f} s of processor time, {(usage.memory_peak_bytes or 0) >> 20} MiB"
    return verdict.kind, f"{verdict.summary} ({spent})", done.stdout


if __name__ == "__main__":
    for name in sys.argv[1:]:
        kind, sentence, output = judged(Path(name).read_text())
        print(f"{Path(name).name}: {kind}: {sentence}")
        if kind == "exited":
            print(f"    {output[:70]!r}")
