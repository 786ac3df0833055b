"""Files of labels: ``--label-file``."""

from __future__ import annotations

from minibox.base.files import content_of
from minibox.errors import UsageError, kernel_says

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def with_labels(values: dict[str, Any]) -> dict[str, Any]:
    """Put the labels of all ``label_file`` before those of ``label``, which win.

    A file has one in each line; empty ones and those that begin with # are left out, as in Docker.

    Raises:
        UsageError: a file can't be read.
    """
    found: list[str] = []
    for path in values["label_file"]:
        try:
            lines = content_of(path).decode().splitlines()
        except (OSError, ValueError) as error:
            said = kernel_says(error) if isinstance(error, OSError) else str(error)
            raise UsageError(f"read label file {path!r}: {said}") from error
        found += [line.lstrip() for line in lines if line.strip() and line.lstrip()[0] != "#"]
    rest = {field: value for field, value in values.items() if field != "label_file"}
    return {**rest, "label": [*found, *values.get("label", ())]}
