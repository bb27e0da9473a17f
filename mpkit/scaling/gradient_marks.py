"""Remember how gradients stand, to see later which of them are still there, and unchanged."""

import operator
import weakref
from collections.abc import Iterable

from torch import Tensor

_version_of = operator.attrgetter("_version")


class GradientMarks:
    """The gradients that some parameters had, and how often each had been written to.

    Weak: no gradient is kept alive. An id alone would not do: the next gradient may get the place of one that is gone.
    torch counts writes in place in `_version`; the kernels that divide gradients are not counted, so mark after them.
    """

    def __init__(self, params: Iterable[Tensor] = ()) -> None:
        grads = [grad for p in params if (grad := p.grad) is not None]
        self._refs, self._versions = list(map(weakref.ref, grads)), list(map(_version_of, grads))

    def standing(self) -> dict[int, int]:
        """Of the gradients that are still there, the count of writes at the mark, by id."""
        pairs = zip(self._refs, self._versions, strict=True)
        return {id(grad): version for ref, version in pairs if (grad := ref()) is not None}

    def unchanged(self) -> bool:
        """Are all of them still there, and was none written to?"""
        pairs = zip(self._refs, self._versions, strict=True)
        return all((grad := ref()) is not None and grad._version == version for ref, version in pairs)
