"""The tools that store and check lessons: each rule can fail, and the canonical form keeps what a reader needs."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from nblint import RULES, lint
from nbstore import WIDGET_VIEW, canonical, machine_paths

import notebooks

PNG = base64.b64encode(b"a picture").decode()


def result(text: str) -> NotebookNode:
    return new_output("execute_result", {"text/plain": text}, execution_count=1)


def good_notebook() -> NotebookNode:
    """A lesson in order: eight code cells, a claim, a picture with words, an error on purpose."""
    cells = [new_code_cell(f"x = {i}", id=f"filler-{i}") for i in range(5)]
    claim = new_code_cell("1 + 1", metadata={"tags": ["claim"]}, outputs=[result("2")], id="claim")
    alt = {"image/png": {"alt": "one bar"}}
    picture = new_code_cell("show()", outputs=[new_output("display_data", {"image/png": PNG}, metadata=alt)], id="pic")
    error = new_output("error", ename="ValueError", evalue="no", traceback=["ValueError: no"])
    raising = new_code_cell("fail()", metadata={"tags": ["raises-exception"]}, outputs=[error], id="raising")
    cells += [claim, picture, raising]
    for count, cell in enumerate(cells, start=1):
        cell.execution_count = count
    return canonical(new_notebook(cells=[new_markdown_cell("# Title", id="title"), *cells]))


def code(nb: NotebookNode, index: int = 0) -> NotebookNode:
    return [cell for cell in nb.cells if cell.cell_type == "code"][index]


def tag(*tags: str, cells: int = 1) -> Callable[[NotebookNode], None]:
    def change(nb: NotebookNode) -> None:
        for index in range(cells):
            code(nb, index).metadata["tags"] = list(tags)

    return change


def show(output: NotebookNode) -> Callable[[NotebookNode], None]:
    return lambda nb: code(nb).outputs.append(output)


def source(text: str) -> Callable[[NotebookNode], None]:
    return lambda nb: code(nb).update(source=text)


BROKEN: list[tuple[str, Callable[[NotebookNode], None], str]] = [
    ("valid", lambda nb: nb.cells[1].update(id=nb.cells[2].id), "cell id 'filler-1' occurs more than once"),
    ("valid", lambda nb: nb.cells[1].pop("outputs"), "not a valid notebook"),
    ("kernel_is_named", lambda nb: nb.metadata.pop("kernelspec"), "kernelspec must be"),
    ("tags_are_known", tag("nbval-ignore"), "unknown tag 'nbval-ignore'"),
    ("comparison_is_not_escaped", tag("nbval-ignore-output", cells=3), "3 of 8 code cells ignore their output"),
    ("comparison_is_not_escaped", source("# NBVAL_IGNORE_OUTPUT\nx"), "use a tag, not an NBVAL comment"),
    ("cells_were_run", lambda nb: code(nb).update(execution_count=None), "stored without a run"),
    ("cells_were_run", lambda nb: code(nb).update(execution_count=7), "not 1, 2, 3"),
    ("promised_output_is_there", tag("claim"), "tagged claim, but shows nothing"),
    ("promised_output_is_there", tag("nbval-check-output"), "tagged nbval-check-output, but shows nothing"),
    ("promised_output_is_there", tag("probe"), "tagged probe, but shows nothing"),
    ("no_stored_errors", show(new_output("error", ename="KeyError", evalue="a", traceback=[])), "error KeyError: a"),
    ("cells_are_short", source("\n".join(["x = 1"] * 16)), "16 lines of code, at most 15"),
    ("lines_are_short", source("x = " + "1" * 117), "a line of 121 characters, at most 120"),
    (
        "what_is_called_the_same_has_a_control",
        source('verdict("C08", "equal", {"a": True})'),
        "a verdict says 'equal' and has no controls=",
    ),
    (
        "what_is_called_the_same_has_a_control",
        source('verdict("C08", "holds", {"BF16 is as good as FP32": True})'),
        "a verdict says 'as good as' and has no controls=",
    ),
    ("no_trailing_semicolons", source("plot(x);  "), "line ends with a semicolon: 'plot(x);'"),
    ("device_is_the_lessons", source('x.to("cuda")'), """names a device, "cuda"; write lesson.device"""),
    ("device_is_the_lessons", source("x.cpu()"), "names a device, .cpu(); write lesson.device"),
    ("pictures_have_words", show(new_output("display_data", {"image/png": PNG})), "picture without alt text"),
    (
        "pictures_have_words",
        show(new_output("display_data", {"image/png": PNG}, metadata={"image/png": {"alt": "  "}})),
        "picture without alt text",
    ),
    ("no_live_views", show(new_output("display_data", {WIDGET_VIEW: {"model_id": "1"}})), "live widget view"),
    ("no_live_views", lambda nb: nb.metadata.update(widgets={}), "widget state is stored"),
    ("no_machine_paths", show(new_output("stream", name="stdout", text="saved /home/me/x.png")), "/home/me/x.png"),
    ("file_is_small", show(new_output("stream", name="stdout", text="x" * 1_000_001)), "at most 1,000,000"),
]


def test_a_lesson_in_order_has_no_complaint() -> None:
    assert lint(good_notebook()) == []


@pytest.mark.parametrize(("rule", "break_it", "text"), BROKEN, ids=[f"{row[0]}-{row[2][:20]}" for row in BROKEN])
def test_each_rule_finds_its_fault(rule: str, break_it: Callable[[NotebookNode], None], text: str) -> None:
    nb = good_notebook()
    break_it(nb)
    named = {function.__name__: function for function in RULES}
    assert text in " ".join(named[rule](nb))
    assert text in " ".join(lint(nb))


def test_every_rule_is_shown_to_fail() -> None:
    assert {rule.__name__ for rule in RULES} == {row[0] for row in BROKEN}


def test_a_verdict_with_a_control_or_without_such_words_is_in_order() -> None:
    nb = good_notebook()
    code(nb).update(
        source='verdict("C08", "equal", {"a": True}, controls={"b": True}); verdict("C1", "larger", {"c": x})'
    )
    assert lint(nb) == []


def test_alt_text_may_stand_on_the_output_itself() -> None:
    nb = good_notebook()
    show(new_output("display_data", {"image/png": PNG}, metadata={"alt": "two bars"}))(nb)
    assert lint(nb) == []


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        ({WIDGET_VIEW: {}, "image/png": PNG, "text/plain": "a"}, {"image/png": PNG, "text/plain": "a"}),
        ({WIDGET_VIEW: {}, "text/plain": "IntSlider(value=1)"}, {"text/plain": "IntSlider(value=1)"}),
        ({WIDGET_VIEW: {}}, None),
    ],
)
def test_a_live_view_becomes_its_static_twin(data: dict[str, object], kept: dict[str, object] | None) -> None:
    nb = good_notebook()
    show(new_output("display_data", data))(nb)
    canonical(nb)
    assert [output.data for output in code(nb).outputs] == ([kept] if kept else [])


def test_canonical_form_drops_what_differs_between_machines() -> None:
    nb = good_notebook()
    nb.metadata.update(widgets={"state": {}}, language_info={"name": "python", "version": "3.11.7"})
    code(nb).metadata.update(execution={"iopub.status.busy": "2026"}, tags=["exercise"])
    code(nb, 7).outputs[0]["traceback"] = ["File /home/me/mpkit/formats.py:3", "ValueError: no"]
    for cell in nb.cells[1:]:
        cell.execution_count += 10
    code(nb, 5).outputs[0]["execution_count"] = 16
    canonical(nb)
    assert "widgets" not in nb.metadata
    assert "version" not in nb.metadata.language_info
    assert code(nb).metadata == {"tags": ["exercise"]}
    assert code(nb, 7).outputs[0].traceback == ["ValueError: no"]
    assert [cell.execution_count for cell in nb.cells[1:]] == list(range(1, 9))
    assert code(nb, 5).outputs[0].execution_count == 6
    assert lint(nb) == []
    assert nb.cells[0].id == "title"


@pytest.mark.parametrize("path", ["/home/me", "/root/x", "/tmp/tmp1/a.png", "/work/mpkit", "/Users/me/lab"])
def test_paths_of_a_machine_are_found(path: str) -> None:
    nb = new_notebook(cells=[new_code_cell("x", outputs=[new_output("stream", name="stderr", text=f"in {path}: no")])])
    assert machine_paths(nb) == [f"cell 0: {path}"]


@pytest.mark.parametrize("text", ["a/home/b", "~/work/x", "mpkit/tmp/", "https://example.org/work/x", "work/home"])
def test_other_text_is_no_machine_path(text: str) -> None:
    assert machine_paths(new_notebook(cells=[new_markdown_cell(text)])) == []


def write(folder: Path, name: str, *sources: str, tags: tuple[str, ...] = ()) -> Path:
    cells = [new_code_cell(text, metadata={"tags": list(tags)}) for text in sources]
    nbformat.write(new_notebook(cells=cells), folder / name)
    return folder / name


def test_run_stores_a_lesson_that_is_in_order_and_runs_again_to_the_same_bytes(tmp_path: Path) -> None:
    path = write(tmp_path, "01_add.ipynb", "import os\nprint('MPKIT_HOME' in os.environ)", "1 + 1")
    assert notebooks.run([path]) == 0
    stored = path.read_bytes()
    nb = nbformat.read(path, as_version=4)
    assert nb.cells[0].outputs[0].text == "True\n"
    assert nb.cells[1].outputs[0].data == {"text/plain": "2"}
    assert notebooks.check([path]) == 0
    assert stored.endswith(b"}\n")
    assert notebooks.run([path]) == 0
    assert path.read_bytes() == stored


@pytest.mark.parametrize(
    ("cell", "message"),
    [("1 / 0", "ZeroDivisionError"), ("import os\nprint('/home/' + 'me')", "shows a path of this machine: cell 0")],
)
def test_run_stores_nothing_when_something_is_wrong(
    cell: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, "01_fail.ipynb", cell)
    before = path.read_bytes()
    assert notebooks.run([path]) == 1
    assert message in capsys.readouterr().err
    assert path.read_bytes() == before


def test_lessons_are_found_by_number_in_reading_order(tmp_path: Path) -> None:
    for name in ["04_b.ipynb", "00_a.ipynb"]:
        write(tmp_path, name, "1")
    assert [path.name for path in notebooks.lessons([], tmp_path)] == ["00_a.ipynb", "04_b.ipynb"]
    assert [path.name for path in notebooks.lessons(["04"], tmp_path)] == ["04_b.ipynb"]
    with pytest.raises(ValueError, match=r"no lesson '9' in .*; there are: 00, 04"):
        notebooks.lessons(["9"], tmp_path)


PANEL = f"""
import ipywidgets
class Panel(ipywidgets.VBox):
    def _repr_mimebundle_(self, **kwargs):
        live = super()._repr_mimebundle_(**kwargs)
        return {{**live, "image/png": {PNG!r}, "text/plain": "Panel"}}, {{"image/png": {{"alt": "one dot"}}}}
Panel([ipywidgets.IntSlider()])
""".strip()


def strict_nbval(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval", "--nbval-current-env"]
    return subprocess.run([*command, path.name], cwd=path.parent, capture_output=True, text=True, timeout=120)


def test_what_run_stores_passes_strict_nbval_and_a_changed_fact_does_not(tmp_path: Path) -> None:
    path = write(tmp_path, "01_panel.ipynb", PANEL, "print(sum([0.1] * 3) == 0.3)")
    assert notebooks.run([path]) == 0
    nb = nbformat.read(path, as_version=4)
    assert nb.cells[0].outputs[0].data == {"image/png": PNG, "text/plain": "Panel"}
    assert lint(nb) == []
    assert "2 passed" in strict_nbval(path).stdout
    path.write_text(path.read_text().replace("False", "True"))
    changed = strict_nbval(path)
    assert changed.returncode == 1
    assert "1 failed, 1 passed" in changed.stdout
