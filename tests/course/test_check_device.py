"""A learner's tensors may be on the CPU or on the GPU: a checker judges what they compute.

No GPU is needed here: the mismatch is raised by hand, and "meta" or "cpu" stands for the GPU. On a real one the answers
of every lesson are judged in tests/gpu/test_checkers_cuda.py.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from harness import lesson_cells
from torch import Tensor

from mpkit.course.exercises import Feedback, check
from mpkit.course.exercises.checker import CHECKERS, checker, passed, wrong
from mpkit.course.table import LESSONS
from mpkit.trees import tensors_in

CHECK = importlib.import_module("mpkit.course.exercises.check")  # the package's own `check` is the function
for entry in LESSONS:
    if entry.ready:
        CHECK.exercises(entry.number)
CODE = [key for key, (_, wants, _) in CHECKERS.items() if wants == "function"]
WITH_TENSORS = {"02.2", "03.2", "03.4", "04.2", "06.1", "06.2", "08.1", "08.2", "09.3"}
MISMATCH = "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let a device of this machine stand for the GPU."""

    def stands_for_it(device: str) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(CHECK, "GPU", device)

    return stands_for_it


@pytest.fixture
def doubling() -> Iterator[str]:
    """An exercise: write a function that doubles a tensor."""
    key = "00.doubling"

    @checker(key, wants="function")
    def double(answer: Any) -> Iterator[Feedback]:
        got = answer(torch.tensor([2.0]))
        yield passed(f"It came on {got.device}.")
        if not got.is_meta and got.item() != 4.0:
            yield wrong("Two becomes something else than its double.")

    yield key
    del CHECKERS[key]


class Once:
    """Raises at its first call."""

    def __init__(self, error: Exception) -> None:
        self.error: Exception | None = error

    def __call__(self) -> None:
        if error := self.error:
            self.error = None
            raise error


def after(first: Once, factor: float = 2.0) -> Callable[[Tensor], Tensor]:
    """A learner's function whose first call meets `first`."""

    def answer(x: Tensor) -> Tensor:
        first()
        return factor * x

    return answer


@pytest.mark.parametrize(
    "text",
    [
        MISMATCH,
        "Expected all tensors to be on the same device, but got mat2 is on cuda:0, different from other tensors on cpu",
        "indices should be either on cpu or on the same device as the indexed tensor (cpu)",
        "attempting to assign a gradient with device type 'cpu' to a tensor with device type 'cuda'. Please ensure …",
        "Expected query, key, and value to have the same device type, but got query.device: cpu key.device: cuda:0 …",
    ],
)
def test_where_two_devices_met_the_checkers_tensors_are_made_on_the_gpu(
    doubling: str, gpu: Callable[[str], None], text: str
) -> None:
    gpu("meta")
    assert check(doubling, lambda x: 2 * x).message == "It came on cpu."
    assert check(doubling, after(Once(RuntimeError(text)))).message == "It came on meta."


def test_a_mismatch_does_not_make_a_wrong_answer_right(doubling: str, gpu: Callable[[str], None]) -> None:
    gpu("cpu")
    assert check(doubling, after(Once(RuntimeError(MISMATCH)))).status == "pass"
    feedback = check(doubling, after(Once(RuntimeError(MISMATCH)), factor=3.0))
    assert repr(feedback) == "✗ Exercise 00.doubling: Two becomes something else than its double."


@pytest.mark.parametrize(
    "error",
    [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), IndexError("index 7 is out of bounds, on any device")],
)
def test_any_other_error_is_told_at_once(doubling: str, gpu: Callable[[str], None], error: Exception) -> None:
    gpu("cpu")
    message = check(doubling, after(Once(error))).message
    assert message.startswith(f"Your code stopped with {type(error).__name__}: {error}. It happened in line ")


def test_a_mismatch_that_stays_is_told(doubling: str, gpu: Callable[[str], None]) -> None:
    gpu("cpu")

    def always(x: Tensor) -> Tensor:
        raise RuntimeError(MISMATCH)

    told = f"Your code stopped with RuntimeError: {MISMATCH}. It happened in line "
    assert check(doubling, always).message.startswith(told)


def test_without_a_gpu_a_mismatch_is_told_at_once(doubling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    told = f"Your code stopped with RuntimeError: {MISMATCH}. It happened in line "
    assert check(doubling, after(Once(RuntimeError(MISMATCH)))).message.startswith(told)


def test_a_stub_that_is_not_implemented_is_still_a_stub(doubling: str, gpu: Callable[[str], None]) -> None:
    gpu("cpu")

    def stub(x: Tensor) -> Tensor:
        raise NotImplementedError("on no device")

    assert check(doubling, stub).status == "not yet"


# --- what comes back ------------------------------------------------------------------------------------------------


class Elsewhere(Tensor):
    """A tensor that says it is on the GPU, and can be brought from there."""

    device = torch.device("cuda:0")  # type: ignore[assignment]

    def to(self, device: Any) -> Tensor:  # type: ignore[override]
        """Its values on the CPU."""
        assert device == torch.device("cpu")
        return self.as_subclass(Tensor)


def test_what_comes_from_the_gpu_is_compared_on_the_cpu(doubling: str) -> None:
    assert check(doubling, lambda x: (2 * x).as_subclass(Elsewhere)).message == "It came on cpu."
    assert check(doubling, lambda x: (3 * x).as_subclass(Elsewhere)).status == "wrong"


def test_tensors_inside_containers_come_too_and_all_else_stays_as_it_is() -> None:
    brought = CHECK._brought_here({"a": [torch.ones(1).as_subclass(Elsewhere), 2.0], "b": "text"})
    assert [type(x) for x in tensors_in(brought)] == [Tensor]
    assert (brought["a"][1], brought["b"]) == (2.0, "text")
    for as_it_came in ([torch.ones(1), 2.0], (1, {}), [torch.ones(1, device="meta")], "text"):
        assert CHECK._brought_here(as_it_came) is as_it_came
    assert CHECK._brought_here([torch.ones(1, device="meta"), torch.ones(1).as_subclass(Elsewhere)])[0].is_meta


def test_on_the_gpu_a_cpu_result_goes_there(doubling: str, gpu: Callable[[str], None]) -> None:
    gpu("meta")
    back = after(Once(RuntimeError(MISMATCH)))
    assert check(doubling, lambda x: torch.ones_like(back(x), device="cpu")).message == "It came on meta."


# --- every checker --------------------------------------------------------------------------------------------------


def devices_seen(key: str, device: str) -> set[str]:
    """Devices of all tensors that the learner's function gets, if the checker runs with `device` around it."""
    seen: set[str] = set()

    def spy(*args: Any) -> float:
        held = [group["params"] for arg in args if hasattr(arg, "param_groups") for group in arg.param_groups]
        seen.update(tensor.device.type for tensor in tensors_in((args, held)))
        return 0.0

    with torch.device(device), contextlib.suppress(Exception):  # what the spy returns is no answer
        found = CHECKERS[key][0](spy)
        if not isinstance(found, Feedback):
            list(found)
    return seen


@pytest.mark.parametrize("key", CODE)
def test_every_tensor_of_a_checker_follows_the_device_around_it(key: str) -> None:
    tensors = key in WITH_TENSORS
    assert devices_seen(key, "cpu") == ({"cpu"} if tensors else set())
    assert devices_seen(key, "meta") == ({"meta"} if tensors else set())


@pytest.mark.parametrize("key", sorted(WITH_TENSORS))
def test_a_solution_that_met_two_devices_passes(
    key: str, gpu: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu("cpu")
    exercise = lesson_cells.exercises(key[:2])[key]
    first = Once(RuntimeError(MISMATCH))

    def look(key: str, answer: Any, *, record: bool) -> Feedback:
        def met(*args: Any) -> Any:
            first()
            return answer(*args)

        return check(key, met, record=record)

    monkeypatch.setattr(lesson_cells, "check", look)
    feedback = lesson_cells.judge(exercise, exercise.solution)
    assert feedback.status == "pass", feedback
    assert first.error is None
    first.error = RuntimeError(MISMATCH)
    assert lesson_cells.judge(exercise, exercise.stub).status != "pass"
