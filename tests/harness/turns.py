"""Waiting for what goes on in an event loop, however long a busy machine takes for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from labserver import PATIENCE


async def until(true: Callable[[], object]) -> None:
    """Give the loop turns until something is true; TimeoutError if it does not come true."""
    async with asyncio.timeout(PATIENCE):
        while not true():
            await asyncio.sleep(0.001)


async def started_and_paused(panel: Any) -> None:
    """Press a live panel's Start, and Pause once it has taken a step; the buttons say so each time."""
    panel.buttons.start.click()
    await until(lambda: panel.race and panel.race.step)
    assert (panel.runner.state, panel.buttons.stop.disabled) == ("running", False)
    panel.buttons.pause.click()
    assert (panel.runner.state, panel.buttons.pause.description) == ("paused", "Resume")
    assert panel.race is not None


async def nothing_goes_on() -> None:
    """Wait until no task but this one is left: from here on nothing works by itself."""
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
