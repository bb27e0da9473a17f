"""What a patient's script has at hand, as facts that speak against a diagnosis: its batch, its checkpoint."""

from contextlib import nullcontext
from functools import cached_property

from mpkit.course.clinic import Case
from mpkit.course.lesson_10.curve_facts import CurveFacts
from mpkit.course.lesson_10.waiting_room import Curves
from mpkit.trees import tensors_in

LARGE = 1e4  # no batch of ordinary numbers goes beyond it


class CaseFacts(CurveFacts):
    """Facts of this case, and of the curves of its owner."""

    def __init__(self, curves: Curves, case: Case) -> None:
        super().__init__(curves, changing=case.stream is not None)
        self.case = case

    @cached_property
    def ordinary(self) -> bool:
        """Does the batch hold finite numbers of ordinary size, with labels that differ?"""
        tensors = list(tensors_in(self.case.batch))
        for tensor in tensors:
            if not tensor.is_floating_point():
                if tensor.numel() > 1 and tensor.min() == tensor.max():
                    return False
            elif not tensor.isfinite().all() or tensor.abs().max() > LARGE:
                return False
        return bool(tensors)

    @cached_property
    def largest(self) -> float:
        """The largest magnitude in the batch."""
        return max(float(tensor.abs().max()) for tensor in tensors_in(self.case.batch))

    @property
    def misfit(self) -> bool:
        """Has the checkpoint finite numbers that are Inf or NaN in the model?"""
        state = self.case.state or {"model": {}}
        own = self.case.model.state_dict()
        return any(bool((t.isfinite() & ~own[name].isfinite()).any()) for name, t in state["model"].items())

    @property
    def elsewhere(self) -> bool:
        """Does more belong to it than the calls of a step: an average, a checkpoint, a context around the loop?"""
        case = self.case
        return case.ema is not None or case.state is not None or case.around is not nullcontext
