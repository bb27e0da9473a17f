"""JupyterLab with a real Chromium, driven from Python: what the browser tests and tools/look.py share.

    with running_lab(notebooks_folder) as lab:
        page = lab.open("00_start_here.ipynb")
        lab.run_all(page)
        lab.screenshot(page, Path("start.png"))
        assert lab.errors == []

The server has the settings of `make lab`, but homes and folders of its own; it and the browser always end.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labserver import PATIENCE, LabError, running_server
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, WebSocket, expect, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# A quiet headless browser: no sandbox (it needs rights that a container lacks), no calls home.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-proxy-server",
]
RUN_ALL = 8 * PATIENCE  # seconds
# What the page does until everything that it sent is dealt with and drawn. Widgets hold a message back until the one
# before it is answered, so one question is not enough.
ASK = """async code => {
  const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  const silent = {code: '', silent: true, store_history: false, user_expressions: {it: code}};
  let told;
  for (let turn = 0; turn < 3; turn++) {
    const asked = kernel.requestExecute(silent);
    told = (await asked.done).content.user_expressions.it;
  }
  await new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)));
  return told;
}"""
# Errors that say nothing about a lesson. Each entry: a part of the text, and why it is harmless.
KNOWN_NOISE = {
    "No such comm": "JupyterLab asks for widgets when it opens a notebook whose kernel has none yet",
    "widget model not found": "and says so once for each; the lesson shows the twins that were saved",
}


def find_browser() -> str | None:
    """The path of a Chromium on this machine, or None."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


@contextmanager
def running_lab(notebooks: Path, browser: str | None = None) -> Iterator[Lab]:
    """Serve `notebooks` in JupyterLab and drive it with Chromium until the block ends.

    The notebooks are used in place: hand over a copy if they must stay as they are.
    Raises LabError if there is no Chromium or the server does not answer.
    """
    executable = browser or find_browser()
    if executable is None:
        raise LabError(f"no browser found; install one of: {', '.join(BROWSERS)}")
    with (
        tempfile.TemporaryDirectory() as home,
        running_server(notebooks, Path(home)) as (url, log),
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=executable, args=FLAGS) as chromium,
    ):
        expect.set_options(timeout=PATIENCE * 1000)
        yield Lab(url, chromium.new_context(), log)  # one for all windows: they share what was loaded


class Lab:
    """A running JupyterLab and the browser that looks at it."""

    def __init__(self, url: str, browser: BrowserContext, log: Path) -> None:
        self.url = url
        self.log = log
        """What the server and its kernels printed."""
        self.errors: list[str] = []
        """Errors of the page, its console, and the kernel outside of cells (a widget's callback), as they came."""
        self._browser = browser
        self._opened = 0

    def open(self, notebook: str, *, dark: bool = False, width: int = 1400, height: int = 1000) -> Page:
        """Open a notebook of the served folder in a fresh window and wait until its kernel is idle."""
        page = self._browser.new_page()
        page.set_viewport_size({"width": width, "height": height})
        page.set_default_timeout(PATIENCE * 1000)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self._note(f"page: {error}"))
        page.on("websocket", self._on_websocket)
        self._opened += 1
        page.goto(f"{self.url}/lab/workspaces/window{self._opened}/tree/{notebook}")
        page.wait_for_function("() => window.jupyterapp !== undefined")
        page.evaluate("() => jupyterapp.restored")
        page.wait_for_selector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell")
        self.theme(page, dark=dark)
        page.evaluate("() => { jupyterapp.shell.mode = 'single-document'; jupyterapp.shell.collapseLeft(); }")
        self.wait_idle(page)
        return page

    def close(self, page: Page) -> None:
        """End the kernel of a notebook and close its window."""
        page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        page.close()

    def theme(self, page: Page, *, dark: bool) -> None:
        """Change the colours, and wait until they are there."""
        self.command(page, "apputils:change-theme", theme=f"JupyterLab {'Dark' if dark else 'Light'}")
        page.wait_for_function("light => document.body.dataset.jpThemeLight === light", arg=str(not dark).lower())
        page.wait_for_function("() => document.getAnimations().every(one => !(one instanceof CSSTransition))")

    def resize(self, page: Page, width: int, height: int = 1000) -> None:
        """Give the window another size, and wait until the notebook fits it."""
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_function(
            "width => { const notebook = jupyterapp.shell.currentWidget.node.getBoundingClientRect();"
            " return innerWidth === width && notebook.right <= width && notebook.right > width - 60; }",
            arg=width,
        )
        page.evaluate("() => new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")

    def ask(self, page: Page, expression: str = "None") -> str:
        """The `repr` of a Python expression in the kernel, once all that was clicked and typed before is dealt with.

        Raises LabError: the expression raised.
        """
        told = page.evaluate(ASK, expression)
        if told["status"] != "ok":
            raise LabError(f"{expression} raised {told['ename']}: {told['evalue']}")
        return str(told["data"]["text/plain"])

    def command(self, page: Page, name: str, **arguments: Any) -> Any:
        """Execute one of JupyterLab's commands, for example "notebook:run-all-cells", and wait for its end."""
        return page.evaluate("([name, args]) => jupyterapp.commands.execute(name, args)", [name, arguments])

    def wait_idle(self, page: Page, timeout_s: float = PATIENCE) -> None:
        """Wait until the kernel says that it has nothing to do."""
        page.wait_for_function(
            "() => jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'",
            timeout=timeout_s * 1000,
        )

    def run_all(self, page: Page, timeout_s: float = RUN_ALL) -> None:
        """Run every cell and wait until widgets stand. Raises LabError for a cell that fails without its tag."""
        page.evaluate(
            "() => { window.ranAll = false;"
            " jupyterapp.commands.execute('notebook:run-all-cells').then(() => { window.ranAll = true; }); }"
        )
        page.wait_for_function("() => window.ranAll", timeout=timeout_s * 1000)
        self.wait_idle(page)
        page.wait_for_function("() => !document.body.innerText.includes('Loading widget...')")
        for index, cell in enumerate(self.cells(page)):
            if "raises-exception" in cell["metadata"].get("tags", []):
                continue
            for output in cell.get("outputs", []):
                if output["output_type"] == "error":
                    raise LabError(f"cell {index} failed with {output['ename']}: {output['evalue']}")

    def cells(self, page: Page) -> list[dict[str, Any]]:
        """The notebook's cells as they stand now, outputs included, in nbformat's JSON."""
        text = page.evaluate("() => JSON.stringify(jupyterapp.shell.currentWidget.content.model.toJSON().cells)")
        return list(json.loads(text))

    def screenshot(self, page: Page, path: Path) -> None:
        """Save what the window shows as a PNG file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=path)

    def screenshots(self, page: Page, folder: Path) -> list[Path]:
        """Scroll from top to bottom and save each windowful as 01.png, 02.png, ...; returns the paths."""
        panel = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-WindowedPanel-outer")
        # JupyterLab lets one scroll a windowful past the last cell; stop at that cell's lower edge instead.
        total, step = panel.evaluate(
            "e => [[...e.querySelectorAll('.jp-Cell')].at(-1).getBoundingClientRect().bottom"
            " - e.getBoundingClientRect().top + e.scrollTop, e.clientHeight]"
        )
        paths = []
        for number, top in enumerate(range(0, max(1, int(total) - 20), step - 40), start=1):
            panel.evaluate("(e, top) => { e.scrollTop = top; }", top)
            page.wait_for_timeout(300)
            paths.append(folder / f"{number:02d}.png")
            self.screenshot(page, paths[-1])
            if top + step >= total:
                break
        return paths

    def _note(self, text: str) -> None:
        if not any(part in text for part in KNOWN_NOISE):
            self.errors.append(text)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._note(f"console: {message.text} ({message.location.get('url', '')})")

    def _on_websocket(self, socket: WebSocket) -> None:
        if "/api/kernels/" in socket.url:
            socket.on("framereceived", self._on_frame)

    def _on_frame(self, frame: str | bytes) -> None:
        """An exception in a widget's callback or a thread reaches no cell; the kernel still says it, so listen."""
        if isinstance(frame, str):
            return
        try:
            header, parent, content = _message(frame)
        except ValueError:  # cut off, as the page was closed
            return
        outside_cells = parent.get("msg_type") != "execute_request"
        kind = header["msg_type"]
        if kind == "error" and outside_cells:
            self._note(f"kernel: {content['ename']}: {content['evalue']}")
        says_it = kind == "stream" and content["name"] == "stderr"
        if says_it and (outside_cells or "Traceback" in content["text"]):
            self._note(f"kernel: {content['text']}")


def _message(frame: bytes) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Header, parent header and content of a frame in Jupyter's protocol v1.kernel.websocket.jupyter.org.

    The frame is: the number of offsets, the offsets (all 8 bytes, little-endian), and the parts from offset to offset:
    channel, header, parent header, metadata, content, buffers.
    """
    words = [int.from_bytes(frame[i : i + 8], "little") for i in range(0, 8 * 7, 8)]
    header, parent, content = (json.loads(frame[words[i] : words[i + 1]]) for i in (2, 3, 5))
    return header, parent, content
