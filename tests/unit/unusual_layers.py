"""Layers with entries in any order, and names in any form, for hypothesis."""

from __future__ import annotations

import tarfile

from hypothesis import strategies as st

from tests.unit.layers import directory, entry, hard_link, symlink

PARTS = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
FORMS = st.sampled_from(["{}", "./{}", "/{}", ".//{}", "{}/."])
WHITEOUTS = st.builds(lambda above, name: "/".join([*above, name]), st.lists(PARTS, max_size=2),
                      st.sampled_from([".wh.a", ".wh.b", ".wh.c", ".wh..wh..opq"]))  # fmt: skip
TIMES = st.integers(1, 9)


def _named(form: str, path: str) -> str:
    return form.format(path)


unusual_entries = st.one_of(
    st.builds(lambda name, content, when: entry(name, content=content, mtime=when), st.builds(_named, FORMS, PATHS),
              st.binary(min_size=1, max_size=2), TIMES),
    st.builds(lambda name, mode, when: directory(name, mode, mtime=when), st.builds(_named, FORMS, PATHS),
              st.sampled_from([0o755, 0o711]), TIMES),
    st.builds(symlink, PATHS, st.sampled_from(["a", "../b", "/a/b", "nowhere"])),
    st.builds(hard_link, PATHS, PATHS),
    st.builds(lambda name: entry(name, tarfile.FIFOTYPE), PATHS),
    st.builds(lambda name: entry(name, tarfile.CHRTYPE, devmajor=0, devminor=0), PATHS),
    st.builds(entry, st.builds(_named, FORMS.filter(lambda form: not form.endswith(".")), WHITEOUTS)),
    st.builds(entry, WHITEOUTS),
    st.just(directory("./", 0o750, mtime=3)),
)  # fmt: skip
#: Layers of an image, the bottom first.
unusual_layers = st.lists(st.lists(unusual_entries, max_size=6), min_size=1, max_size=4)
