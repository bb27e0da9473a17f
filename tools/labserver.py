"""A JupyterLab server for tests: the settings of `make lab`, but homes and folders of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 90  # seconds: what has not come by then does not come, not even on a machine whose cores are all busy
OWN_HOMES = (
    "JUPYTER_CONFIG_DIR",
    "JUPYTER_DATA_DIR",
    "JUPYTER_RUNTIME_DIR",
    "JUPYTERLAB_SETTINGS_DIR",
    "JUPYTERLAB_WORKSPACES_DIR",
    "IPYTHONDIR",
    "MPKIT_HOME",
)


class LabError(RuntimeError):
    """The lab, a lesson's cell or the browser did not do what was asked."""


@contextmanager
def running_server(notebooks: Path, home: Path) -> Iterator[tuple[str, Path]]:
    """A JupyterLab server for one folder; yields its address and its log file."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    log = home / "server.log"
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.root_dir": notebooks,
        "IdentityProvider.token": "",
        "LabApp.expose_app_in_browser": True,
    }
    command += [f"--{name}={value}" for name, value in options.items()]
    with log.open("w") as sink:
        process = subprocess.Popen(
            command, cwd=home, env=environment(home), stdout=sink, stderr=sink, start_new_session=True
        )
    try:
        _wait_for_answer(f"{url}/api/status", process, log)
        yield url, log
    finally:
        _stop(process)


def environment(home: Path) -> dict[str, str]:
    """The learner's environment with the settings of `make lab`, and every writable home inside `home`."""
    own = {name: str(home / name.lower()) for name in OWN_HOMES}
    return {**os.environ, **own, "JUPYTER_CONFIG_PATH": str(ROOT / "tools" / "jupyter")}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_answer(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with suppress(OSError), opener.open(url, timeout=5):
            return
        if process.poll() is not None:
            break
        time.sleep(0.2)
    raise LabError(f"JupyterLab does not answer at {url}. Its log ends with:\n{log.read_text()[-2000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and, through it, its kernels; by force if it does not listen."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
