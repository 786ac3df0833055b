"""A directory of the host in which the tests of `minibox try` run commands."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.conftest import Completed, Run

Found = dict[str, dict[str, Any]]

FILES = """
mkdir -p d/e gone kept; echo old > d/f; echo old > d/e/g; echo old > gone/x; echo same > kept/same; echo text > text
echo linked > one; ln one two; echo file > becomes-directory; mkdir becomes-directory-no-more; echo x > becomes-directory-no-more/x
ln -s text link; echo again > again; echo mode > mode; touch -d @1000000000 mode
"""


class Host:
    """A directory of the host, and `minibox` in it."""

    def __init__(self, run: Run, path: Path, uid: int) -> None:
        self.run, self.path, self.uid = run, path, uid
        path.mkdir()
        os.chown(path, uid, uid)
        self.sh(FILES)

    def sh(self, script: str) -> None:
        subprocess.run(["sh", "-ec", script], cwd=self.path, user=self.uid, group=self.uid, check=True)

    def minibox(self, *words: str, **more: Any) -> Completed:
        return self.run(*words, cwd=str(self.path), **more)

    def attempt(self, *words: str) -> Completed:
        done = self.minibox("try", *words)
        assert done.returncode == 0, done.stderr
        return done

    def keep(self, script: str) -> tuple[str, Found]:
        """Try a shell script; return the name under which it is kept, and its changes below the directory."""
        self.attempt("--keep", "sh", "-ec", script)
        return self.kept()

    def kept(self) -> tuple[str, Found]:
        """Return the one trial that is kept."""
        [row] = json.loads(self.minibox("tried", "--json").stdout)
        above = f"{self.path}/"
        return row["Name"], {each["Path"].removeprefix(above): each for each in row["Changes"]}

    def tried(self, *words: str) -> Completed:
        done = self.minibox("tried", *words)
        assert done.returncode == 0, done.stderr
        return done

    def apply(self, script: str, *words: str) -> Completed:
        name, _ = self.keep(script)
        return self.tried(name, "--apply", *words)
