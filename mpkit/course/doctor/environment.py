"""What is installed, and whether the two sides of a notebook fit together: the kernel, and the server that shows it.

Widgets need both: `ipywidgets` where the kernel runs, `jupyterlab_widgets` where the server runs.
"""

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

PACKAGES = ("torch", "numpy", "jupyterlab", "ipywidgets", "jupyterlab_widgets", "matplotlib")
EXTENSION = Path("share/jupyter/labextensions/@jupyter-widgets/jupyterlab-manager/package.json")
FRONT_END_OF_IPYWIDGETS_8 = 5  # major version of @jupyter-widgets/jupyterlab-manager; 3 belongs to ipywidgets 7
CURE = "pip install jupyterlab_widgets in the environment that runs the server, restart the server, reload the page"

Kind = Literal["good", "note", "bad"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `kind` is good, note or bad; a bad one has a cure."""

    kind: Kind
    text: str
    cure: str = ""


def versions() -> dict[str, str]:
    """Version of Python and of each package of this environment; "" for one that is missing."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name) or ""
        except (metadata.PackageNotFoundError, KeyError):  # KeyError: what is left of it names no version
            found[name] = ""
    return found


def examine(installed: Mapping[str, str]) -> list[Finding]:
    """`findings` for this kernel and its server. What cannot be looked at is a note: the doctor goes on."""
    try:
        return findings(installed, server_prefix())
    except Exception as error:
        return [Finding("note", f"The packages could not be examined ({type(error).__name__}).")]


def findings(installed: Mapping[str, str], server: Path | None) -> list[Finding]:
    """Judge the versions of the kernel's environment, and the server's folder if it is known."""
    found = [Finding("bad", f"{name} is missing.", f"pip install {name}") for name, v in installed.items() if not v]
    major = installed.get("ipywidgets", "").split(".")[0]
    if major and int(major) < 8:
        found.append(
            Finding("bad", f"ipywidgets {installed['ipywidgets']} is too old.", 'pip install "ipywidgets>=8.1"')
        )
    return [*found, _server_finding(server)]


def _server_finding(server: Path | None) -> Finding:
    """Does the server's environment hold a widget front end that fits the kernel's ipywidgets?"""
    if server is None:
        return Finding("note", "The server cannot be seen from here. If sliders show as text:", CURE)
    front = extension_version(server)
    if front is None:
        return Finding("bad", "The server has no widget front end: sliders show as text.", CURE)
    if int(front.split(".")[0]) < FRONT_END_OF_IPYWIDGETS_8:
        return Finding("bad", f"The server's widget front end ({front}) is too old for ipywidgets 8.", CURE)
    return Finding("good", "Kernel and server both have widgets.")


def extension_version(server: Path) -> str | None:
    """Version of @jupyter-widgets/jupyterlab-manager among the lab extensions that this server reads, or None."""
    data = os.environ.get("JUPYTER_DATA_DIR")
    user = Path(data) if data else Path.home() / ".local" / "share" / "jupyter"
    relative = EXTENSION.relative_to("share/jupyter")
    for path in (server / EXTENSION, user / relative, Path("/usr/local") / EXTENSION):
        try:
            return str(json.loads(path.read_text(encoding="utf-8"))["version"])
        except (OSError, ValueError, KeyError):
            continue
    return None


def server_prefix(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Folder of the Python environment that runs the server, or None if there is none or it cannot be told.

    jupyter_client gives each kernel its parent's process id in JPY_PARENT_PID. What runs there can be read from /proc,
    so on Linux only. An editor that starts kernels itself is no Python, and brings its own widget front end.
    """
    pid = environment.get("JPY_PARENT_PID", "")
    try:
        process = Path(f"/proc/{int(pid)}")
        first_word = Path((process / "cmdline").read_text(encoding="utf-8").split("\0")[0])
        python = (process / "cwd").readlink() / first_word
    except (OSError, ValueError):
        return None
    if not python.exists() or not python.name.startswith("python"):
        return None
    # Not resolved: a virtual environment's python is a link, and the link's folder is what counts.
    return python.parent.parent
