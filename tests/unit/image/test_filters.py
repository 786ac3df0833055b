"""`--filter`, and finding images: Docker's keys and rules."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibox.docker_words.filters import glob, parse_filters, parse_time
from minibox.engine.upkeep.image_filters import LIST_KEYS, PRUNE_KEYS, created_s, moment, select
from minibox.errors import ImageNotFound, InvalidReference, UsageError
from minibox.image.layout.inventory import StoredImage, find

REF_NAME = "org.opencontainers.image.ref.name"


def image(number: int, *names: str, created: str = "", labels: dict[str, str] | None = None) -> StoredImage:
    digest = f"sha256:{number:064x}"
    entries = tuple({"digest": digest, "annotations": {REF_NAME: name} if name else {}} for name in names or ("",))
    config = {"created": created, "config": {"Labels": labels or {}}}
    return StoredImage(f"sha256:abcd{number}{0:059}", entries, digest, config, (), ())


OLD = image(
    1, "docker.io/library/app:1", "docker.io/team/app:1", created="2024-01-01T00:00:00Z", labels={"a": "1", "b": ""}
)
NEW = image(2, "localhost:5000/x/app:2", created="2024-06-01T12:30:00.123456789+02:00", labels={"a": "2"})
NONE = image(3, created="2024-03-01T00:00:00Z")
IMAGES = [OLD, NEW, NONE]


def names_of(*words: str) -> list[str]:
    chosen = select(IMAGES, parse_filters(words, LIST_KEYS))
    return [name.familiar for _, names in chosen for name in names] + ["<none>" for each, _ in chosen if not each.names]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], ["app:1", "team/app:1", "localhost:5000/x/app:2", "<none>"]),
        (["dangling=true"], ["<none>"]),
        (["dangling=0"], ["app:1", "team/app:1", "localhost:5000/x/app:2"]),
        (["label=a"], ["app:1", "team/app:1", "localhost:5000/x/app:2"]),
        (["label=a=2"], ["localhost:5000/x/app:2"]),
        (["label=b="], ["app:1", "team/app:1"]),
        (["label=a", "label=b"], ["app:1", "team/app:1"]),
        (["label=c"], []),
        (["reference=app"], ["app:1"]),
        (["reference=app:1"], ["app:1"]),
        (["reference=*"], ["app:1"]),
        (["reference=*/app"], ["team/app:1"]),
        (["reference=*/*/app:[0-9]", "reference=team/*"], ["team/app:1", "localhost:5000/x/app:2"]),
        (["reference=nothing*"], []),
        (["before=localhost:5000/x/app:2"], ["app:1", "team/app:1", "<none>"]),
        (["since=app:1"], ["localhost:5000/x/app:2", "<none>"]),
        (["since=app:1", "dangling=true"], ["<none>"]),
        (["until=2024-02-01"], ["app:1", "team/app:1"]),
        (["until=1h"], ["app:1", "team/app:1", "localhost:5000/x/app:2", "<none>"]),
    ],
)
def test_a_filter_leaves_what_fits(words: list[str], names: list[str]):
    assert names_of(*words) == names


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("dangling", "it is not KEY=VALUE"),
        ("colour=red", "there is no filter 'colour'"),
        ("dangling=maybe", "invalid filter 'dangling=maybe'"),
        ("until=yesterday", "invalid time 'yesterday'"),
        ("until=", "invalid time ''"),
        ("reference=[a", "is not closed"),
        ("label!=a", "there is no filter 'label!'"),
    ],
)
def test_a_filter_that_cannot_be_meant_is_refused(word: str, message: str):
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        parse_filters([word], LIST_KEYS)
    assert caught.value.hint or "not closed" in message


def test_prune_keeps_by_label():
    wanted = parse_filters(["label!=a=1"], PRUNE_KEYS)
    assert [each for each, _ in select(IMAGES, wanted)] == [NEW, NONE]


def test_the_image_of_a_filter_must_be_there():
    with pytest.raises(ImageNotFound):
        names_of("before=nothing")


def test_times():
    now = time.time()
    assert parse_time("1h30m", now) == pytest.approx(now - 5400)
    assert parse_time("1.5s", now) == pytest.approx(now - 1.5)
    assert parse_time("1700000000", now) == 1700000000
    assert parse_time("2024-05-01T00:00:00+02:00", now) == 1714514400
    assert created_s(NEW) == pytest.approx(1717237800.123456)
    assert moment("2024") == moment(None) == moment("0001-13-01T00:00:00Z") == 0


@given(st.text(max_size=12), st.text(max_size=12))
def test_a_glob_is_a_pattern_or_refused(pattern: str, text: str):
    try:
        glob(pattern).fullmatch(text)
    except UsageError:
        return


@given(st.text(max_size=20))
def test_any_word_is_a_filter_or_refused(word: str):
    for keys in (LIST_KEYS, PRUNE_KEYS):
        try:
            parse_filters([word, f"until={word}", f"reference={word}"], keys)
        except UsageError:
            continue


@pytest.mark.parametrize(
    ("reference", "wanted", "name"),
    [
        ("app:1", OLD, "app:1"), ("docker.io/library/app:1", OLD, "app:1"), ("team/app:1", OLD, "team/app:1"),
        ("localhost:5000/x/app:2", NEW, "localhost:5000/x/app:2"), (NEW.digest, NEW, None), (NONE.id, NONE, None),
        (NONE.id[7:], NONE, None), (NEW.id[:13], NEW, None), ("abcd3", NONE, None), (f"app@{OLD.digest}", OLD, "app:1"),
    ],
)  # fmt: skip
def test_an_image_is_found(reference: str, wanted: StoredImage, name: str | None):
    image, found = find(IMAGES, reference)
    assert image is wanted and (found.familiar if found else None) == name


@pytest.mark.parametrize(
    ("reference", "error"),
    [("app", ImageNotFound), ("app:2", ImageNotFound), ("f" * 64, ImageNotFound), ("abc", ImageNotFound),
     ("abcd", InvalidReference), ("A", InvalidReference)],
)  # fmt: skip
def test_what_is_no_image_is_not_found(reference: str, error: type[Exception]):
    with pytest.raises(error):
        find(IMAGES, reference)
