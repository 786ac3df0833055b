"""Whatever changes in a Dockerfile or its context: it counts, and `--why` names it.

CI tries 20 changes; `make build-long` tries 200 (MINIBOX_LONG).
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

from tests.integration.build.conftest import Builder, cached
from tests.peers import LONG

ROUNDS = 200 if LONG else 20
TEXT = """\
FROM base
ARG V={arg}
ENV E={env}
COPY a /files/
COPY --chmod={chmod} lib /lib/
RUN echo {run} "$V" > /ran
COPY <<NOTE /note
{note}
NOTE
WORKDIR /work/{directory}
RUN pwd > /where
"""


class Project:
    """A Dockerfile and its context. A mutation returns what `--why` has to say.

    No state comes twice: then all lines would be reused from the first time, as they should be.
    """

    def __init__(self, builder: Builder, chance: random.Random) -> None:
        self.builder, self._chance = builder, chance
        self._values = dict.fromkeys(("arg", "env", "run", "note", "directory"), "0") | {"chmod": "644"}
        self._count = self._modes = 0
        builder.file("a", "content 0000")
        for name in ("b", "c", "d/e", *(f"old{number}" for number in range(ROUNDS))):
            builder.file(f"lib/{name}", f"{name} 0")
        self.link.symlink_to("b")

    @property
    def lib(self) -> Path:
        return self.builder.context / "lib"

    @property
    def link(self) -> Path:
        return self.lib / "link"

    @property
    def text(self) -> str:
        return TEXT.format(**self._values)

    def mutate(self) -> str:
        """Change one thing."""
        self._count += 1
        kinds = (
            self._content, self._same_size_and_time, self._mode, self._new, self._gone, self._renamed, self._linked,
            self._kind, self._argument, self._variable, self._line, self._chmod, self._heredoc, self._directory,
        )  # fmt: skip
        return self._chance.choice(kinds)()

    def _file(self) -> Path:
        files = sorted(path for path in self.lib.rglob("*") if path.is_file() and not path.is_symlink())
        return self._chance.choice(files)

    def _shown(self, path: Path) -> str:
        return str(path.relative_to(self.lib))

    def _content(self) -> str:
        path = self._file()
        path.write_text(f"changed {self._count}")
        return f"{self._shown(path)}: content"

    def _same_size_and_time(self) -> str:
        path = self.builder.context / "a"
        before = path.stat()
        path.write_text(f"content {self._count:04}")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return "a: content"

    def _mode(self) -> str:
        path = self._file()
        self._modes += 1
        before, mode = path.stat().st_mode & 0o7777, readable_mode(self._modes)
        path.chmod(mode)
        return f"{self._shown(path)}: mode {mode:o}, was {before:o}"

    def _new(self) -> str:
        self.builder.file(f"lib/new{self._count}", "new")
        return f"new{self._count}: new"

    def _gone(self) -> str:
        path = next(path for path in self.lib.glob("old*") if path.is_file())
        path.unlink()
        return f"{path.name}: gone"

    def _renamed(self) -> str:
        path = self._file()
        path.rename(path.with_name(f"moved{self._count}"))
        return f"{self._shown(path)}: gone"

    def _linked(self) -> str:
        self.link.unlink()
        self.link.symlink_to(f"target{self._count}")
        return "link: link target"

    def _kind(self) -> str:
        path = next(path for path in self.lib.glob("old*") if path.is_file())
        path.unlink()
        path.mkdir()
        return f"{path.name}: another kind of file"

    def _changed(self, name: str) -> tuple[str, str]:
        before, self._values[name] = self._values[name], f"{self._count}"
        return self._values[name], before

    def _argument(self) -> str:
        return "arg V is '{}', was '{}'".format(*self._changed("arg"))

    def _variable(self) -> str:
        return "env E is '{}', was '{}'".format(*self._changed("env"))

    def _line(self) -> str:
        now, _ = self._changed("run")
        return f"echo {now} "

    def _chmod(self) -> str:
        self._values["chmod"] = f"{0o400 + self._count:o}"
        return f"chmod is '{self._values['chmod']}'"

    def _heredoc(self) -> str:
        now, _ = self._changed("note")
        return f"{now}\\n"

    def _directory(self) -> str:
        now, _ = self._changed("directory")
        return f"/work/{now}"

    def build(self) -> list[str]:
        return self.builder.ok(self.text, "--why")


def readable_mode(number: int) -> int:
    """Return another mode for each number below 128, with which everybody can read."""
    return 0o404 | number & 0o3 | (number & 0o34) << 1 | (number & 0o140) << 1


def first_reason(lines: list[str]) -> str:
    """What is said of the first line that wasn't reused."""
    done = {line.split()[0] for line in lines if line.startswith("#") and line.split()[1:2] == ["DONE"]}
    made = sorted(done - {"#1"}, key=lambda number: int(number[1:]))  # the first is FROM
    assert made, "\n".join(lines)
    return "\n".join(line for line in lines if line.startswith(f"{made[0]} "))


def test_why_names_each_change(builder: Builder) -> None:
    project = Project(builder, random.Random(1))
    project.build()
    for _ in range(ROUNDS):
        expected = project.mutate()
        assert expected in first_reason(project.build())
    assert all(cached(project.build())[1:])
    assert builder.sh("cat /files/a; cat /where").endswith(f"/work/{project._values['directory']}")


def test_a_change_of_what_is_ignored_does_not_count(builder: Builder, new_context: Callable[[], Path]) -> None:
    builder.file(".dockerignore", "**/*.log\n.dockerignore\nDockerfile\n")
    builder.file("src/a", "a")
    builder.ok("FROM base\nCOPY . /src/\n")
    builder.file("src/x.log", "x")
    builder.file(".dockerignore", "# other\n**/*.log\n.dockerignore\nDockerfile\n")
    assert cached(builder.ok("FROM base\nCOPY . /src/\n"))[1:] == [True]


def test_a_line_that_failed_is_compared_with_the_last_time_that_it_worked(builder: Builder) -> None:
    builder.ok("FROM base\nARG V=1\nRUN test $V != 2\n")
    for _ in range(2):
        said = builder.run("FROM base\nARG V=2\nRUN test $V != 2\n", "--why")
        assert said.returncode == 1
    assert "arg V is '3', was '1'" in "\n".join(builder.ok("FROM base\nARG V=3\nRUN test $V != 2\n", "--why"))
