"""The canonical form of a stored lesson: the same run gives the same file, on any machine.

A notebook saved by an editor carries times, Python versions, widget models and file paths. Here they go,
so that a difference in a stored lesson is a difference in what a learner sees.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from nbformat import NotebookNode

KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE_INFO = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
# Written by editors and runners, of no use to a reader.
NOTEBOOK_NOISE = {"widgets", "signature"}
CELL_NOISE = {"execution", "ExecuteTime", "collapsed", "scrolled", "trusted"}
MACHINE_PATH = re.compile(r"(?<![\w.~])/(?:home|root|tmp|work|Users)/[\w./-]*")


def canonical(nb: NotebookNode) -> NotebookNode:
    """Bring an executed notebook into its stored form, in place, and return it.

    Tags, cell ids and text stay. Execution counts become 1, 2, 3, ... over the cells that ran.
    """
    for key in NOTEBOOK_NOISE & set(nb.metadata):
        del nb.metadata[key]
    nb.metadata["kernelspec"] = dict(KERNELSPEC)
    nb.metadata["language_info"] = dict(LANGUAGE_INFO)
    count = 0
    for cell in nb.cells:
        for key in CELL_NOISE & set(cell.metadata):
            del cell.metadata[key]
        if cell.cell_type == "code":
            count += cell.execution_count is not None
            _canonical_code(cell, count)
    return nb


def _canonical_code(cell: NotebookNode, count: int) -> None:
    if cell.execution_count is not None:
        cell.execution_count = count
    for output in cell.outputs:
        _canonical_output(output, cell.execution_count)
    # An output that held nothing but a live view has nothing left to show.
    cell.outputs = [out for out in cell.outputs if "data" not in out or out["data"]]


def _canonical_output(output: NotebookNode, count: int | None) -> None:
    """A live view becomes its picture or its text: a reader without a kernel never sees "model not found"."""
    for field in ("data", "metadata"):
        output.get(field, {}).pop(WIDGET_VIEW, None)
    if output.output_type == "execute_result":
        output["execution_count"] = count
    if output.output_type == "error":
        # Frames name files of this machine; nbval compares the error's name and text only.
        output["traceback"] = [f"{output['ename']}: {output['evalue']}"]


def machine_paths(nb: NotebookNode) -> list[str]:
    """Every path of a machine's own that the notebook shows, as "cell 3: /path". Pictures are not searched."""
    found = []
    for index, cell in enumerate(nb.cells):
        for text in _strings(cell):
            found += [f"cell {index}: {match.group()}" for match in MACHINE_PATH.finditer(text)]
    return found


def _strings(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for key, value in node.items():
            if not (str(key).startswith("image/") and isinstance(value, str)):
                yield from _strings(value)
    elif isinstance(node, list):
        for item in node:
            yield from _strings(item)
