"""`pytest --nbval notebooks`: each lesson runs in a home of its own, where nobody has answered anything yet.

So it passes on a machine whose owner has done the lessons, and leaves no answer behind.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HOMES = pytest.StashKey[tempfile.TemporaryDirectory[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Make a folder for the homes; it goes with the run."""
    config.stash[HOMES] = tempfile.TemporaryDirectory(prefix="mpkit-")
    config.add_cleanup(config.stash[HOMES].cleanup)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Around what nbval does before a cell: before a lesson's first one it starts the kernel."""
    if type(item.parent).__name__ != "IPyNbFile":
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPKIT_HOME", str(Path(item.config.stash[HOMES].name) / item.path.stem))
        patch.setenv("MPKIT_STRICT", "1")  # a panel's error is the cell's, and so is a picture whose words are cut
        return (yield)
