"""torch.autocast does what its lists say, on a CPU; on a GPU, see tests/gpu."""

from __future__ import annotations

from mpkit.course.lesson_06.autocast_lists import AUTOCAST_LISTS, BY_DEVICE, autocast_seen


def test_a_cpu_does_as_its_own_list_says() -> None:
    seen = autocast_seen("cpu")
    assert seen == AUTOCAST_LISTS["cpu"]
    assert {name for name in seen if seen[name] != AUTOCAST_LISTS["cuda"][name]} == set(BY_DEVICE)
