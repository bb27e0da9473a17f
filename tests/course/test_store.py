"""The learner's answers survive: atomically written, one lesson apart from another, never lost to a broken file."""

from __future__ import annotations

import json
import math
import os
import warnings
from pathlib import Path

import platformdirs
import pytest
from platformdirs.api import PlatformDirsABC
from platformdirs.macos import MacOS
from platformdirs.unix import Unix
from platformdirs.windows import Windows

from mpkit.course.exercises import store


def test_a_value_comes_back_and_is_plain_json() -> None:
    store.put("predictions", "04.flushed", 40.5)
    store.put("predictions", "04.rule", "größer")
    assert store.get("predictions", "04.flushed") == 40.5
    assert store.section("predictions", "04") == {"04.flushed": 40.5, "04.rule": "größer"}
    text = (store.home() / "04.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"predictions": {"04.flushed": 40.5, "04.rule": "größer"}}


def test_what_was_never_stored_is_the_default() -> None:
    assert store.get("quizzes", "04.quiz") is None
    assert store.get("quizzes", "04.quiz", 7) == 7
    assert not store.home().exists(), "reading must not create anything"


def test_kinds_and_lessons_do_not_touch_each_other() -> None:
    store.put("predictions", "04.a", 1)
    store.put("exercises", "04.a", "pass")
    store.put("predictions", "05.a", 2)
    assert store.get("predictions", "04.a") == 1
    assert store.get("exercises", "04.a") == "pass"
    store.reset("04")
    assert store.load("04") == {}
    assert store.get("predictions", "05.a") == 2
    store.reset()
    assert store.load("05") == {}


def test_reset_leaves_other_files_alone(tmp_path: Path) -> None:
    store.put("predictions", "04.a", 1)
    mine = store.home() / "notes.txt"
    mine.write_text("mine")
    store.reset()
    assert mine.read_text() == "mine"
    assert sorted(path.name for path in store.home().iterdir()) == ["notes.txt"]


@pytest.mark.parametrize("content", ['{"predictions": {"04.a": ', "[1, 2]", "\x00\x00", "", "[" * 100_000])
def test_a_broken_file_is_kept_aside_with_a_warning(content: str) -> None:
    store.home().mkdir(parents=True)
    path = store.home() / "04.json"
    for count in ("", "1"):
        path.write_text(content, encoding="utf-8")
        with pytest.warns(UserWarning, match=rf"04.json could not be read .*kept as .*04.json.broken{count},"):
            assert store.load("04") == {}
        assert (store.home() / f"04.json.broken{count}").read_text(encoding="utf-8") == content
    store.put("predictions", "04.a", 1)
    assert store.get("predictions", "04.a") == 1


def test_a_section_of_the_wrong_kind_does_no_harm() -> None:
    store.home().mkdir(parents=True)
    (store.home() / "04.json").write_text('{"predictions": 3, "exercises": {"04.1": "pass"}}')
    with pytest.warns(UserWarning, match="predictions in .* could not be understood and is ignored; answer again"):
        assert store.section("predictions", "04") == {}
    store.put("predictions", "04.a", 1)
    assert store.get("exercises", "04.1") == "pass"


ODD = {
    "predictions": {"04.a": [1], "04.b": True, "04.c": None, "04.d": 10**400, "04.e": math.nan, "04.fine": 2},
    "exercises": {"04.1": "bogus", "04.2": ["pass"], "04.3": "pass"},
    "quizzes": {"04.quiz": {"now": 5}, "04.other": {"first": ["a"], "now": [1], "right": [1]}, "04.third": 7},
    "later": 5,
}


def test_odd_values_are_ignored_with_one_warning_and_stay_in_the_file() -> None:
    store.home().mkdir(parents=True)
    path = store.home() / "04.json"
    path.write_text(json.dumps(ODD))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for kind, fine in (("predictions", {"04.fine": 2}), ("exercises", {"04.3": "pass"}), ("quizzes", {})):
            assert store.section(kind, "04") == fine
    assert [str(w.message) for w in caught] == [
        "predictions 04.a, predictions 04.b, predictions 04.c, predictions 04.d, predictions 04.e, exercises 04.1, "
        f"exercises 04.2, quizzes 04.quiz, quizzes 04.other, quizzes 04.third in {path} could not be understood and is "
        'ignored; answer again, or forget the lesson\'s answers with mpkit.course.exercises.reset("04").'
    ]
    store.put("exercises", "04.2", "pass")
    kept = json.loads(path.read_text())
    assert kept["exercises"] == {"04.1": "bogus", "04.2": "pass", "04.3": "pass"}
    assert (kept["predictions"]["04.a"], kept["later"]) == ([1], 5)


def test_a_crash_while_writing_keeps_the_old_file(monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("predictions", "04.a", 1)

    def crash(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.warns(UserWarning, match=r"answer 04.a could not be stored .*No space left.*set .*MPKIT_HOME"):
        store.put("predictions", "04.a", 2)
    assert store.get("predictions", "04.a") == 1
    assert [path.name for path in store.home().iterdir()] == ["04.json"], "the half-written neighbour is gone"


@pytest.mark.parametrize("key", ["flushed", "4.a", "04", "04.", "04. a", "04.../x", "", 4, None])
def test_a_key_without_its_lesson_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=r"must be the lesson's two digits, a point and a name, such as '04.flushed'"):
        store.put("predictions", key, 1)


@pytest.mark.parametrize("lesson", ["4", "../x", "0004", "", 4])
def test_reset_refuses_what_is_no_lesson(lesson: str) -> None:
    with pytest.raises(ValueError, match="must be written with two digits"):
        store.reset(lesson)
    with pytest.raises(
        ValueError, match=r"there is no lesson '77'; write the two digits of one of these: 00 start_here"
    ):
        store.reset("77")


@pytest.mark.parametrize("lesson", ["04", None])
def test_reset_says_when_the_home_is_a_file(lesson: str | None) -> None:
    store.home().write_text("mine")
    with pytest.raises(RuntimeError, match=r"could not be removed \(Not a directory\); set .*MPKIT_HOME to a folder"):
        store.reset(lesson)
    assert store.home().read_text() == "mine"


def test_reset_of_nothing_is_fine() -> None:
    store.reset()
    store.reset("04")
    assert not store.home().exists()


LOCAL = r"C:\Users\ada\AppData\Local"


@pytest.mark.parametrize(
    ("system", "variables", "expected"),
    [
        (Unix, {"XDG_DATA_HOME": "/data"}, "/data/mpkit"),
        (Unix, {"XDG_DATA_HOME": "not/absolute"}, "~/.local/share/mpkit"),
        (Unix, {"XDG_DATA_HOME": ""}, "~/.local/share/mpkit"),
        (MacOS, {"XDG_DATA_HOME": "/data"}, "/data/mpkit"),
        (MacOS, {"XDG_DATA_HOME": ""}, "~/Library/Application Support/mpkit"),
        (MacOS, {"XDG_DATA_HOME": "not/absolute"}, "~/Library/Application Support/mpkit"),
        (Windows, {"WIN_PD_OVERRIDE_LOCAL_APPDATA": LOCAL}, os.path.join(LOCAL, "mpkit")),
    ],
)
def test_home_without_mpkit_home_follows_the_system(
    system: type[PlatformDirsABC], variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platformdirs, "PlatformDirs", system)
    monkeypatch.delenv("MPKIT_HOME")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert store.home() == Path(expected).expanduser()


def test_mpkit_home_may_name_the_users_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPKIT_HOME", "~/elsewhere")
    assert store.home() == Path.home() / "elsewhere"
