"""The rows of `--browser`: how soon each control of each panel answers, in JupyterLab with a real Chromium.

What drives the browser lies in tools/ of a checkout, beside the lessons that it opens. It is imported when rows are
asked for, so that the other rows need neither.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mpkit.bench.measure import Case

ROOT = Path(__file__).resolve().parents[2]
PRESSES = 40  # of each control


def missing() -> str:
    """What `--browser` lacks here, and the cure, in a sentence; "" if nothing."""
    if not (ROOT / "tools" / "keybench.py").is_file():
        return "--browser opens the lessons, which an installed mpkit lacks; run it from a checkout of the repository."
    lacking = [name for name in ("playwright", "jupyterlab") if importlib.util.find_spec(name) is None]
    if lacking:
        return f"--browser needs {' and '.join(lacking)}, not installed here; pip install -r requirements.txt."
    if tool("labdriver").find_browser() is None:
        return "--browser needs Chromium and there is none; install chromium or google-chrome."
    return ""


def cases(stack: ExitStack) -> list[Case]:
    """Two rows a control, medians and 95th percentiles. `stack` ends the lab and the browser that they start.

    Raises:
        RuntimeError: something is `missing`.
    """
    if lack := missing():
        raise RuntimeError(lack)
    return list(tool("keybench").cases(stack))


def tool(name: str) -> Any:
    """A module of the checkout's tools."""
    if str(ROOT / "tools") not in sys.path:
        sys.path.append(str(ROOT / "tools"))
    return importlib.import_module(name)
