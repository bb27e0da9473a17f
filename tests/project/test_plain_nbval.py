"""Plain `pytest --nbval notebooks`, as anyone would type it, on a machine whose owner has done the lessons."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ASKED = """from mpkit.course.exercises import predict, quiz, store
import os
print(sorted(os.listdir(store.home())) if store.home().exists() else "nobody has answered")
predict("00.sum", "?", choices=("a", "b"), default="a").field.value = "b"
quiz("00").answer(0, 0)"""


def test_answers_of_the_machines_owner_do_not_show_and_none_is_left(tmp_path: Path) -> None:
    home, lessons = tmp_path / "home", tmp_path / "lessons"
    home.mkdir()
    lessons.mkdir()
    (home / "00.json").write_text('{"predictions": {"00.sum": "exactly 2"}}')
    shutil.copy(ROOT / "conftest.py", tmp_path)
    output = {"output_type": "stream", "name": "stdout", "text": "nobody has answered\n"}
    cell = {"cell_type": "code", "execution_count": 1, "id": "a", "metadata": {}, "outputs": [output], "source": ASKED}
    for name in ("one", "two"):  # not even the answers of another lesson
        text = json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
        (lessons / f"{name}.ipynb").write_text(text)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--nbval", "--nbval-current-env", f"--rootdir={tmp_path}", str(lessons)],
        cwd=tmp_path, env={**os.environ, "MPKIT_HOME": str(home), "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "2 passed" in run.stdout, run.stdout
    assert [file.name for file in home.iterdir()] == ["00.json"]
    assert (home / "00.json").read_text() == '{"predictions": {"00.sum": "exactly 2"}}'
