"""Which images the filters of ``image ls`` and ``image prune`` choose.

Source: https://docs.docker.com/reference/cli/docker/image/ls/#filter. If several filters have the key ``reference``,
one must match; of all others, each must match.
"""

from __future__ import annotations

import re
import time

from minibox.base.values import has_label
from minibox.docker_words.filters import glob, parse_time, parse_truth
from minibox.image.layout.inventory import NONE, find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from minibox.docker_words.filters import Filter
    from minibox.image.layout.inventory import Name, StoredImage

LIST_KEYS = ("before", "dangling", "label", "reference", "since", "until")
PRUNE_KEYS = ("dangling", "label", "label!", "until")


def created_s(image: StoredImage) -> float:
    """Return when an image was made, in seconds since 1970; 0 if unknown."""
    return moment(image.created)


def dated_s(image: StoredImage) -> float:
    """Return the date that filters use for an image.

    It is when the image was made; or when it came into the store, if that is unknown or 1970 or before, as reproducible
    builds set it.
    """
    made_s = created_s(image)
    return made_s if made_s > 0 else image.stored_s


def moment(text: object) -> float:
    """Parse a time of RFC 3339 to seconds since 1970; 0 if it is invalid."""
    import datetime

    try:
        found = datetime.datetime.fromisoformat(text if isinstance(text, str) else "")
        return (found if found.tzinfo else found.replace(tzinfo=datetime.UTC)).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def select(images: Sequence[StoredImage], filters: Sequence[Filter]) -> list[tuple[StoredImage, tuple[Name, ...]]]:
    """Return the images that match, each with those of its names that match.

    Raises:
        ImageNotFound: the image of a filter ``before`` or ``since`` doesn't exist.
    """
    now_s = time.time()
    patterns = [glob(each.value) for each in filters if each.key == "reference"]
    chosen = []
    for image in images:
        names = tuple(name for name in image.names if not patterns or any(_fits(name, each) for each in patterns))
        if (names or not patterns) and all(_passes(image, each, images, now_s) for each in filters):
            chosen.append((image, names))
    return chosen


def _fits(name: Name, pattern: re.Pattern[str]) -> bool:
    return any(pattern.fullmatch(text) for text in (name.familiar, name.repository) if text != NONE)


def _passes(image: StoredImage, wanted: Filter, images: Sequence[StoredImage], now_s: float) -> bool:
    key, value = wanted.key, wanted.value
    if key == "dangling":
        return parse_truth(value) == (not image.names)
    if key in ("label", "label!"):
        return has_label(image.labels, value) == (key == "label")
    if key == "until":
        return dated_s(image) <= parse_time(value, now_s)
    if key in ("before", "since"):
        other = find(images, value)[0]
        return dated_s(image) < dated_s(other) if key == "before" else dated_s(image) > dated_s(other)
    return True
