"""`Runner`: long work in small slices on the kernel's own event loop, so that buttons answer while it goes on.

It starts no thread. `mpkit.policy` registers optimizer hooks for the whole process while a policy is applied, and torch
modes for its own thread: a second thread would round what is not its own, or fail to. Between two slices the loop is
free, and everything (a button, another cell) runs at a point where no step is half done. JupyterLab may call a panel's
controls from a thread of its own; the panel's lock keeps them, too, out of a step.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from typing import Literal

SLICE = 0.035  # seconds of work at a time; a unit of work and a picture may come on top
REST = 0.010  # seconds: a message takes several turns of the loop from the socket to its callback
State = Literal["idle", "running", "paused", "stopped", "done", "failed"]

# One runner a name. The loop itself holds tasks weakly, so this also keeps them alive; a finished one leaves.
_RUNNING: dict[str, Runner] = {}


class Runner:
    """Calls `work` until it returns False.

    Args:
        name: who it belongs to, such as a panel's class. Starting stops an earlier runner of that name, so that a cell
            that is run again does not leave its old work behind.
        work: one unit of work, a few milliseconds; returns whether there is more.
        changed: called after every slice and at every change of `state`. It must not raise.
        failed: called with an exception of `work`; the work ends there.
    """

    def __init__(
        self, name: str, work: Callable[[], bool], changed: Callable[[], None], failed: Callable[[Exception], None]
    ) -> None:
        self.name, self.work, self.changed, self.failed = name, work, changed, failed
        self.state: State = "idle"
        self.task: asyncio.Task[None] | None = None

    @property
    def active(self) -> bool:
        """Is there work that goes on or can be resumed?"""
        return self.state in ("running", "paused")

    def start(self) -> bool:
        """Begin, on the running loop. Returns False, and does nothing, where no loop runs: use `run_to_end`.

        Raises:
            RuntimeError: it was started before; a runner runs once.
        """
        if self.state != "idle":
            raise RuntimeError(f"this runner is {self.state} and runs once; make a new one.")
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        stop(self.name)
        _RUNNING[self.name] = self
        self.state = "running"
        self.task = loop.create_task(self._slices(), name=f"mpkit {self.name}")
        return True

    def run_to_end(self) -> None:
        """Do all the work (what is left of it) here and now. An exception is raised, not passed to `failed`."""
        if self.state not in ("idle", "running", "paused"):
            return
        self._leave("running")
        try:
            while self.state == "running" and self.work():
                self.changed()
        except BaseException as error:
            self._leave("failed" if isinstance(error, Exception) else "stopped")
            self.changed()
            raise
        if self.state == "running":  # nobody stopped it in between
            self._leave("done")
            self.changed()

    def pause(self) -> None:
        """Keep the work for later. Without effect unless it is running."""
        self._switch("running", "paused")

    def resume(self) -> None:
        """Go on after `pause`. RuntimeError: no loop runs here; `run_to_end` does the rest without one."""
        if self.state != "paused":
            return
        loop = asyncio.get_running_loop()
        self.task = loop.create_task(self._slices(), name=f"mpkit {self.name}")
        self._switch("paused", "running")

    def stop(self) -> None:
        """End for good. Without effect when it has ended."""
        if self.active:
            self._leave("stopped")
            self.changed()

    def _switch(self, old: State, new: State) -> None:
        if self.state == old:
            self.state = new
            if new == "paused":
                self.task = None
            self.changed()

    def _leave(self, state: State) -> None:
        self.state = state
        if _RUNNING.get(self.name) is self:
            del _RUNNING[self.name]
        self.task = None  # it notices after its sleep; JupyterLab may call from another thread, which may not cancel it

    async def _slices(self) -> None:
        try:
            me = asyncio.current_task()
            _listen_to_interrupts()
            while self.state == "running" and self.task is me:  # paused and resumed meanwhile: another task goes on
                end = time.perf_counter() + SLICE
                while self.state == "running" and time.perf_counter() < end:
                    if not self.work():
                        self._leave("done")
                self.changed()
                if self.state == "running" and self.task is me:
                    await asyncio.sleep(REST)
        except KeyboardInterrupt:  # the ■ of the toolbar, during a cell that waits: it must not end the kernel's loop
            self._leave("stopped")
            self.changed()
        except Exception as error:
            self._leave("failed")
            self.failed(error)


def _listen_to_interrupts() -> None:
    """Let the ■ of the toolbar stop what runs. Between two messages the kernel ignores it; in a cell it ends the cell.

    The handler stays: the kernel puts it back after each message, and where nothing runs it does nothing.
    """
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda _number, _frame: stop_all())


def stop_all() -> None:
    """Stop every runner."""
    for name in list(_RUNNING):
        stop(name)


def stop(name: str) -> bool:
    """Stop the runner of that name, if there is one; returns whether there was."""
    runner = _RUNNING.get(name)
    if runner is None:
        return False
    runner.stop()
    return True
