"""The rules that a stored lesson keeps. Each rule is one function: notebook in, complaints out."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator

from nbformat import NotebookNode
from nbformat.v4 import writes
from nbformat.validator import iter_validate
from nbstore import KERNELSPEC, WIDGET_VIEW, machine_paths

ALLOWED_TAGS = {
    "nbval-ignore-output",
    "nbval-check-output",
    "raises-exception",
    "probe",
    "claim",
    "exercise",
    "hide-input",
    "teacher",
}
PROMISES_OUTPUT = {"nbval-check-output", "claim", "probe"}
MAX_LINES = 15
MAX_BYTES = 1_000_000
MAX_IGNORED_SHARE = 0.25

MAX_WIDTH = 120
SAME = re.compile(r"\b(equivalent|equal|within|as good as)\b")

DEVICE = re.compile(r"""["'](?:cpu|cuda|cuda:\d+)["']|\.(?:cpu|cuda)\(\)""")

Rule = Callable[[NotebookNode], list[str]]


def lint(nb: NotebookNode) -> list[str]:
    """Every complaint of every rule; an empty list for a lesson in order.

    An invalid notebook gets only that complaint, for the other rules rely on its structure.
    """
    return valid(nb) or [complaint for rule in RULES for complaint in rule(nb)]


def _code(nb: NotebookNode) -> Iterator[tuple[str, NotebookNode]]:
    for index, cell in enumerate(nb.cells):
        if cell.cell_type == "code":
            yield f"cell {index}", cell


def _tags(cell: NotebookNode) -> set[str]:
    return set(cell.metadata.get("tags", []))


def valid(nb: NotebookNode) -> list[str]:
    """The file is a notebook that every reader opens, with unique cell ids."""
    ids = [cell.get("id") for cell in nb.cells]
    wrong = sorted({f"cell id {name!r} occurs more than once" for name in ids if ids.count(name) > 1})
    # (nbformat.validate would repair the ids in place and say nothing.)
    return wrong + [f"not a valid notebook: {str(error).splitlines()[0]}" for error in iter_validate(nb)]


def kernel_is_named(nb: NotebookNode) -> list[str]:
    """Without it JupyterLab asks the learner to choose a kernel."""
    if nb.metadata.get("kernelspec") == KERNELSPEC:
        return []
    return [f"kernelspec must be {KERNELSPEC}: store the lesson with `make notebooks`"]


def tags_are_known(nb: NotebookNode) -> list[str]:
    """A tag with a typing error would silently change what is compared."""
    return [
        f"cell {index}: unknown tag {tag!r}; allowed: {', '.join(sorted(ALLOWED_TAGS))}"
        for index, cell in enumerate(nb.cells)
        for tag in sorted(_tags(cell) - ALLOWED_TAGS)
    ]


def comparison_is_not_escaped(nb: NotebookNode) -> list[str]:
    """At most a quarter of the code cells may hide their output from nbval, and only by a tag."""
    cells = list(_code(nb))
    wrong = [f"{where}: use a tag, not an NBVAL comment" for where, c in cells if "# NBVAL_" in c.source]
    ignored = sum("nbval-ignore-output" in _tags(cell) for _, cell in cells)
    if ignored > MAX_IGNORED_SHARE * len(cells):
        wrong.append(f"{ignored} of {len(cells)} code cells ignore their output; at most a quarter may")
    return wrong


def cells_were_run(nb: NotebookNode) -> list[str]:
    """Nbval compares nothing in a cell without a count, so a stripped lesson would pass unread."""
    wrong = [f"{where}: stored without a run" for where, cell in _code(nb) if cell.execution_count is None]
    counts = [cell.execution_count for _, cell in _code(nb)]
    if not wrong and counts != list(range(1, len(counts) + 1)):
        wrong.append(f"execution counts are {counts}, not 1, 2, 3, ...: run the lesson top to bottom")
    return wrong


def promised_output_is_there(nb: NotebookNode) -> list[str]:
    """A claim without an output claims nothing."""
    return [
        f"{where}: tagged {', '.join(sorted(_tags(cell) & PROMISES_OUTPUT))}, but shows nothing"
        for where, cell in _code(nb)
        if _tags(cell) & PROMISES_OUTPUT and not cell.outputs
    ]


def no_stored_errors(nb: NotebookNode) -> list[str]:
    """An error is stored only where the lesson means to show one."""
    return [
        f"{where}: stored error {output.ename}: {output.evalue}"
        for where, cell in _code(nb)
        if "raises-exception" not in _tags(cell)
        for output in cell.outputs
        if output.output_type == "error"
    ]


def cells_are_short(nb: NotebookNode) -> list[str]:
    """A longer cell belongs into the library, where it has a name and a test."""
    lines = [(where, len(cell.source.splitlines())) for where, cell in _code(nb)]
    return [f"{where}: {count} lines of code, at most {MAX_LINES}" for where, count in lines if count > MAX_LINES]


def lines_are_short(nb: NotebookNode) -> list[str]:
    """A learner who has to scroll sideways does not read on."""
    return [
        f"{where}: a line of {len(line)} characters, at most {MAX_WIDTH}"
        for where, cell in _code(nb)
        for line in cell.source.splitlines()
        if len(line) > MAX_WIDTH
    ]


def what_is_called_the_same_has_a_control(nb: NotebookNode) -> list[str]:
    """Every test of "as good as" is passed by something; it says something if a bad run fails it."""
    return [
        f"{where}: a verdict says {found[0]!r} and has no controls=, a bad run that must fail its test"
        for where, cell in _code(nb)
        for call in calls(cell.source, "verdict")
        if (found := SAME.search(ast.unparse(call))) and "controls" not in {word.arg for word in call.keywords}
    ]


def calls(source: str, name: str) -> list[ast.Call]:
    """The calls of a function by its bare name."""
    nodes = ast.walk(ast.parse(source)) if f"{name}(" in source else ()
    return [
        node
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
    ]


def no_trailing_semicolons(nb: NotebookNode) -> list[str]:
    """Under nbval a semicolon does not hide a value; write `_ = ...` instead."""
    return [
        f"{where}: line ends with a semicolon: {line.strip()!r}"
        for where, cell in _code(nb)
        for line in cell.source.splitlines()
        if line.rstrip().endswith(";")
    ]


def device_is_the_lessons(nb: NotebookNode) -> list[str]:
    """A cell that names a device runs there, whatever `mpkit.start` chose; `lesson.device` runs anywhere."""
    return [
        f"{where}: names a device, {found[0]}; write lesson.device"
        for where, cell in _code(nb)
        if (found := DEVICE.findall(cell.source))
    ]


def pictures_have_words(nb: NotebookNode) -> list[str]:
    """A picture carries its finding as alternative text, for those who do not see it."""
    return [
        f"{where}: picture without alt text in the output's metadata"
        for where, cell in _code(nb)
        for output in cell.outputs
        if "image/png" in output.get("data", {}) and not _alt(output)
    ]


def _alt(output: NotebookNode) -> str:
    metadata = output.get("metadata", {})
    alt = metadata.get("image/png", {}).get("alt") or metadata.get("alt") or ""
    return str(alt).strip()


def no_live_views(nb: NotebookNode) -> list[str]:
    """A stored view of a widget whose kernel is gone shows "model not found"."""
    wrong = ["widget state is stored in the notebook's metadata"] if "widgets" in nb.metadata else []
    return wrong + [
        f"{where}: a live widget view is stored"
        for where, cell in _code(nb)
        if any(WIDGET_VIEW in output.get("data", {}) for output in cell.outputs)
    ]


def no_machine_paths(nb: NotebookNode) -> list[str]:
    """A path of the machine that ran the lesson tells a reader nothing, and differs on the next one."""
    return [f"machine path in {where}" for where in machine_paths(nb)]


def file_is_small(nb: NotebookNode) -> list[str]:
    """Code hosts stop showing large notebooks, and every clone carries them."""
    size = len(writes(nb).encode())
    return [f"{size:,} bytes, at most {MAX_BYTES:,}: use fewer or smaller pictures"] if size > MAX_BYTES else []


RULES: list[Rule] = [
    valid,
    kernel_is_named,
    tags_are_known,
    comparison_is_not_escaped,
    cells_were_run,
    promised_output_is_there,
    no_stored_errors,
    cells_are_short,
    lines_are_short,
    what_is_called_the_same_has_a_control,
    no_trailing_semicolons,
    device_is_the_lessons,
    pictures_have_words,
    no_live_views,
    no_machine_paths,
    file_is_small,
]
