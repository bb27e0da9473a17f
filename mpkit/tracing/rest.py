"""Python's collector of cycles, at rest while a pass is watched."""

import gc


class Rest:
    """`begin` and `end` a time in which Python collects no cycles, if it did before.

    A watched pass makes some thousands of small objects and holds them until they are judged. Each 700 of them set the
    collector off, and it walks all that a program holds: 8 ms a step of a ResNet-50, where nothing is to be collected.
    Between two passes it may work as always.
    """

    def __init__(self) -> None:
        self._resting = False

    def begin(self) -> None:
        """No collection from here."""
        if gc.isenabled():
            gc.disable()
            self._resting = True

    def end(self) -> None:
        """As before; without a begin, nothing."""
        if self._resting:
            gc.enable()
            self._resting = False
