"""Where a learner's answers live: one small JSON file a lesson, on the learner's own machine, never in a notebook.

One file a lesson, because two open lessons are two kernels that must not overwrite each other.
"""

import errno
import json
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import platformdirs

from mpkit.course import table

KEY = re.compile(r"(\d\d)\.\w[\w.-]*")  # "04.flushed": the lesson's number, a point, a name
Status = Literal["pass", "not yet", "wrong"]  # what the check of an exercise can say
ELSEWHERE = "set the environment variable MPKIT_HOME to a folder that you can write to."
LARGEST = sys.float_info.max  # a stored number is finite: JSON has no Inf, and no lesson could compare with it
_told: set[str] = set()  # warnings that were given in this kernel, so that each is given once


def home() -> Path:
    """Folder of the learner's data: $MPKIT_HOME, else the per-user data folder of the operating system.

    Linux: $XDG_DATA_HOME/mpkit or ~/.local/share/mpkit. macOS: the same variable's, or ~/Library/Application
    Support/mpkit. Windows: %LOCALAPPDATA%\\mpkit. A relative XDG_DATA_HOME is ignored, as its specification asks.
    """
    chosen = os.environ.get("MPKIT_HOME")
    # Without appauthor=False, Windows would get one more folder, named after an author.
    return Path(chosen).expanduser() if chosen else platformdirs.user_data_path("mpkit", appauthor=False)


def lesson_of(key: str) -> str:
    """Number of the lesson that a key such as "04.flushed" belongs to.

    Raises:
        ValueError: the key does not begin with a lesson's two digits and a point.
    """
    match = KEY.fullmatch(key) if isinstance(key, str) else None
    if match is None:
        raise ValueError(f"key {key!r} must be the lesson's two digits, a point and a name, such as '04.flushed'.")
    return match[1]


def get(kind: str, key: str, default: Any = None) -> Any:
    """Stored value of `key` among the answers of one kind ("predictions", "exercises", "quizzes")."""
    return section(kind, lesson_of(key)).get(key, default)


def section(kind: str, lesson: str) -> dict[str, Any]:
    """All answers of one kind in one lesson: key -> value. Empty if there are none."""
    found: dict[str, Any] = load(lesson).get(kind, {})
    return found


def put(kind: str, key: str, value: Any) -> None:
    """Store a JSON value. If the folder cannot be written, warn and go on: a lesson must not stop for that."""
    lesson = lesson_of(key)
    data = _read(lesson)
    kept = data.get(kind)
    data[kind] = {**(kept if isinstance(kept, dict) else {}), key: value}
    text = json.dumps(data, indent=1, ensure_ascii=False)
    try:
        _write(_path(lesson), text)
    except OSError as error:
        warnings.warn(
            f"your answer {key} could not be stored in {home()} ({error.strerror}); {ELSEWHERE}", stacklevel=2
        )


def load(lesson: str) -> dict[str, Any]:
    """Everything stored for one lesson: kind -> key -> value.

    A file that is not readable JSON is kept under another name, with a warning. A value that is not understood, say
    after an edit by hand, is left out here, with one warning, and stays in the file.
    """
    understood: dict[str, Any] = {}
    odd = []
    for kind, answers in _read(lesson).items():
        if kind not in _FITS:  # from another version: nobody here asks for it
            continue
        if not isinstance(answers, dict):
            odd.append(kind)
            continue
        fits = _FITS[kind]
        odd += [f"{kind} {key}" for key, value in answers.items() if not fits(value)]
        understood[kind] = {key: value for key, value in answers.items() if fits(value)}
    if odd:
        _warn_once(
            f"{', '.join(odd)} in {_path(lesson)} could not be understood and is ignored; answer again, "
            f'or forget the lesson\'s answers with mpkit.course.exercises.reset("{lesson}").'
        )
    return understood


def _read(lesson: str) -> dict[str, Any]:
    """The file as it is. Empty if there is none, or if it is broken."""
    path = _path(lesson)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError:  # not there yet, or not readable: nothing to lose either way
        return {}
    except (ValueError, RecursionError) as error:
        return _move_aside(path, str(error))
    if not isinstance(data, dict):
        return _move_aside(path, f"a {type(data).__name__} where a dictionary was expected")
    return data


def reset(lesson: str | None = None) -> None:
    """Forget the answers of one lesson ("04"), or of all lessons.

    Raises:
        ValueError: there is no such lesson.
        RuntimeError: the folder is a file, or a file in it cannot be removed.
    """
    if lesson is not None:
        _path(lesson)  # refuses "4" and "../x" with its own words
        table.find(lesson)
    try:
        if home().exists() and not home().is_dir():  # glob would find nothing there, and say nothing
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        for path in sorted(home().glob(f"{lesson or '[0-9][0-9]'}.json")):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise RuntimeError(f"the answers in {home()} could not be removed ({error.strerror}); {ELSEWHERE}") from None


def _path(lesson: str) -> Path:
    if not isinstance(lesson, str) or not re.fullmatch(r"\d\d", lesson):
        raise ValueError(f"lesson {lesson!r} must be written with two digits, such as '04'.")
    return home() / f"{lesson}.json"


def is_number(value: Any, low: float, high: float) -> bool:
    """Whether it is a number from `low` to `high`: no text, not True, not NaN."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _is_quiz(value: Any) -> bool:
    lists = [value.get(name) for name in ("first", "now", "right")] if isinstance(value, dict) else [None]
    return all(isinstance(found, list) and all(type(item) in (int, type(None)) for item in found) for found in lists)


_FITS: dict[str, Callable[[Any], bool]] = {
    "predictions": lambda value: isinstance(value, str) or is_number(value, -LARGEST, LARGEST),
    "exercises": lambda value: value in get_args(Status),
    "quizzes": _is_quiz,
}


def _warn_once(text: str) -> None:
    if text not in _told:
        _told.add(text)
        warnings.warn(text, stacklevel=4)


def _write(path: Path, text: str) -> None:
    """Write to a neighbour, then rename: a crash leaves the old file or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


def _move_aside(path: Path, reason: str) -> dict[str, Any]:
    """Rename a broken file to the first free name and start afresh."""
    names = [path.with_name(f"{path.name}.broken{n or ''}") for n in range(1000)]
    aside = next(name for name in names if not name.exists())
    try:
        path.replace(aside)
    except OSError:  # a folder that cannot be written: the broken file stays where it is
        aside = path
    warnings.warn(
        f"your answers in {path.name} could not be read ({reason}); the file is kept as {aside}, "
        "and the lesson starts afresh.",
        stacklevel=4,
    )
    return {}
