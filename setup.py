"""The compiled parts of minibox; everything else about the package is in pyproject.toml.

These things are built:

- ``minibox._native``: the cffi extension over native/ (API mode, compiled);
- ``minibox._seccomp``: libseccomp's declarations for cffi (ABI mode: a Python file, nothing compiled);
- ``minibox._systemd``: sd-bus's, likewise;
- ``minibox/minibox-init``: a static executable, since it runs inside containers whose C library we
  don't know; on the host it is the supervisor of detached containers;
- the files that `minibox.base.own_modules` will fill, empty: so pip knows of them, and removes them with the rest.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from glob import glob

from setuptools import setup  # before distutils, which is in it since Python 3.12
from setuptools.command.build_ext import build_ext

from distutils.command.build_scripts import build_scripts  # isort: skip

# PEP 517 runs this file without its own directory on the path; the cffi builders import each other.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

INIT_SOURCES = ["native/init.c", "native/plan.c", "native/remove.c"]  # the linker leaves out what main doesn't reach
INIT_SOURCES += sorted(glob("native/child/*.c") + glob("native/parent/*.c") + glob("native/dns/*.c"))
PACKS = ["minibox", "minibox-others", "minibox-oci", "minibox-oci-others"]


class build_native(build_ext):
    """Build the extensions, then the static executable next to them."""

    def run(self) -> None:
        super().run()
        self.build_init()
        if not self.inplace:
            for path in self.packs():
                os.makedirs(os.path.dirname(path), exist_ok=True)
                open(path, "wb").close()

    def packs(self) -> list[str]:
        """Return the packs of modules that this Python will use, by `minibox.base.own_modules.use`."""
        directory = os.path.join(self.build_lib, "minibox", "__pycache__")
        return [os.path.join(directory, f"{name}.{sys.implementation.cache_tag}.pack") for name in PACKS]

    def build_init(self) -> None:
        """Link ``minibox/minibox-init``, init and supervisor; in place for an editable install."""
        directory = "minibox" if self.inplace else os.path.join(self.build_lib, "minibox")
        os.makedirs(directory, exist_ok=True)
        compiler = os.environ.get("CC", "cc").split()
        # An undeclared function returns an int, and a pointer cut to 32 bits crashes far from here.
        flags = ["-std=gnu17", "-D_GNU_SOURCE", "-Os", "-Wall", "-Wextra", "-Werror=implicit-function-declaration"]
        flags += ["-iquote", "native", "-static", "-s", "-ffunction-sections", "-Wl,--gc-sections"]
        output = os.path.join(directory, "minibox-init")
        # Linked beside and renamed: an executable that is running can't be written to (ETXTBSY).
        subprocess.run([*compiler, *flags, "-o", output + ".new", *INIT_SOURCES], check=True)
        os.replace(output + ".new", output)

    def get_outputs(self) -> list[str]:
        return [*super().get_outputs(), os.path.join(self.build_lib, "minibox", "minibox-init"), *self.packs()]


class build_programs(build_scripts):
    """Build the scripts, and tell minibox-oci which interpreter it was built with: copies of it have no other word."""

    def run(self) -> None:
        super().run()
        path = os.path.join(self.build_dir, "minibox-oci")
        with open(path, encoding="utf-8") as file:
            text = file.read()
        with open(path, "w", encoding="utf-8") as file:
            file.write(text.replace("@PYTHON@", shlex.quote(sys.executable)))


setup(
    cffi_modules=[
        "native/extension/native_build.py:ffibuilder",
        "native/extension/seccomp_build.py:ffibuilder",
        "native/extension/systemd_build.py:ffibuilder",
    ],
    scripts=["bin/minibox", "bin/minibox-oci"],
    cmdclass={"build_ext": build_native, "build_scripts": build_programs},
)
