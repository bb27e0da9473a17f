"""The live table of operations: each entry against what torch does when it is asked directly."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
import torch.nn.functional as F

from mpkit import FP16
from mpkit.course.exercises import check
from mpkit.course.lesson_02 import kernel_survey as module
from mpkit.course.lesson_02 import kernel_trials as survey_trials
from mpkit.course.lesson_02.kernel_survey import Survey, by_hand, cuda_list, hard_inputs, planted, survey
from mpkit.course.lesson_02.kernel_trials import BY_HAND, TRIALS, Trial

NAMES = (
    "matmul", "conv", "ReLU", "max-pool", "exp", "log", "softmax", "log-softmax", "sum", "mean", "variance",
    "layer norm", "cross-entropy",
)  # fmt: skip


@pytest.fixture(scope="module")
def kernels() -> Survey:
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return survey()


@pytest.fixture(scope="module")
def steps() -> Survey:
    torch.set_num_threads(1)
    return by_hand()


@pytest.fixture(scope="module")
def hard() -> Survey:
    torch.set_num_threads(1)
    return hard_inputs()


def test_the_thirteen_operations_are_there(kernels: Survey) -> None:
    assert tuple(row.name for row in kernels) == NAMES


def test_every_kernel_runs_and_only_two_are_exact(kernels: Survey) -> None:
    assert all(row.runs for row in kernels)
    assert [row.name for row in kernels if row.exact] == ["ReLU", "max-pool"]
    assert max(row.spacings for row in kernels) < 1, "around 0 and 1"
    assert all(row.error == 0 for row in kernels if row.exact)
    assert min(row.error for row in kernels if not row.exact) > 1e-5


@pytest.mark.parametrize(
    ("name", "breaks"),
    [("matmul", "Inf: 64 products of 32 × 32"), ("conv", "Inf: 36 products of 42.69 × 42.69"), ("ReLU", ""),
     ("max-pool", ""), ("exp", "Inf from 11.09"), ("log", ""),
     ("softmax", "0 if 17.34 below the largest"), ("log-softmax", "−Inf: logits of ± 32768"),
     ("sum", "Inf: 1,024 values of 64"), ("mean", ""), ("variance", "Inf: values of ± 256"), ("layer norm", ""),
     ("cross-entropy", "Inf: logits of ± 32768")],
)  # fmt: skip
def test_where_each_breaks(kernels: Survey, name: str, breaks: str) -> None:
    assert kernels[name].breaks == breaks


def half(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float16)


def test_those_limits_are_true() -> None:
    """One step further and one step less far, asked of torch and of plain arithmetic."""
    assert 11.0859375 < math.log(65520) < 11.09375
    assert half(11.0859375).exp().isfinite().all()
    assert half(11.09375).exp().isinf().all()
    assert math.exp(-17.34375) < 2.0**-25 < math.exp(-17.328125)
    assert 1024 * 63.96875 == 65504 < 65520 <= 1024 * 64
    assert 64 * 31.984375**2 < 65520 <= 64 * 32.0**2
    assert 36 * 42.65625**2 < 65520 <= 36 * 42.6875**2
    positive = FP16.values()[FP16.values() > 0].half()
    assert positive.log().isfinite().all(), "of no FP16 number above 0 has log an Inf"
    assert float(positive.min()) == 2.0**-24
    assert half(2.0**-25).log().isinf().all(), "flushed before log saw it"
    assert half(65504.0, -65504.0).softmax(0).isfinite().all()
    assert 2 * 32752 == 65504 < 65520 <= 2 * 32768
    assert half(32752.0, -32752.0).log_softmax(0).tolist() == [0.0, -65504.0]
    assert half(32768.0, -32768.0).log_softmax(0).tolist() == [0.0, -torch.inf]


def test_what_a_sure_model_and_an_offset_do_to_each_kernel(hard: Survey) -> None:
    """This is the CPU's table: the two over the last dim add in FP16 (LogSoftmaxKernelImpl.h)."""
    assert {row.name: row.size for row in hard if row.size != "below 1 spacing"} == {
        "matmul": "a few spacings", "layer norm": "a few spacings",
        "log-softmax": "over 90 %", "cross-entropy": "over 90 %",
    }  # fmt: skip
    assert hard["log-softmax"].error == hard["cross-entropy"].error == 1.0
    assert hard["softmax"].runs
    for row in hard:
        assert row.widened is not None
        assert row.widened.size == "below 1 spacing", "FP32 inside, rounded once"


@pytest.mark.parametrize(("dtype", "unit"), [(torch.float16, 2.0**-11), (torch.bfloat16, 2.0**-8)])
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_the_loss_is_zero_from_half_a_spacing_next_to_1_on(classes: int, dtype: torch.dtype, unit: float) -> None:
    """The sum is 1 + what the others have; it is 1 in the format as long as that is at most half a spacing."""
    right = torch.tensor([0])
    logits = torch.zeros(160, 1, classes, dtype=torch.float64)
    logits[:, 0, 0] = torch.arange(160) / 8
    for row in logits:
        true, low = (float(F.cross_entropy(row.to(to), right)) for to in (torch.float64, dtype))
        others = math.expm1(true)  # the sum without the 1
        if abs(others / unit - 1) > 0.05:  # the kernel rounds each term too
            assert (low == 0) == (others < unit), row[0, 0]
        if true > 16 * unit:
            assert low == pytest.approx(true, rel=0.1)


def test_another_dim_or_fp32_first_keeps_the_loss() -> None:
    x, true = half(8.0, 0.0), math.log1p(math.exp(-8.0))
    column = x[:, None].expand(2, 3)
    assert -float(column.log_softmax(0)[0, 0]) == pytest.approx(true, rel=1e-3)
    assert -float(column.T.contiguous().log_softmax(1)[0, 0]) == 0.0
    assert -float(x.float().log_softmax(0)[0]) == pytest.approx(true, rel=1e-3)
    assert -float(x.log_softmax(0, dtype=torch.float32)[0]) == pytest.approx(true, rel=1e-3)
    image = x.view(1, 2, 1, 1).expand(1, 2, 2, 2)
    assert float(F.cross_entropy(image, torch.zeros(1, 2, 2, dtype=torch.long))) == pytest.approx(true, rel=1e-3)
    assert float(F.cross_entropy(x[None], torch.tensor([0]))) == 0.0


def test_the_gradient_of_the_right_class_is_lost_too() -> None:
    x = half(9.0, 0.0)[None].requires_grad_()
    F.cross_entropy(x, torch.tensor([0])).backward()
    assert x.grad is not None
    assert x.grad[0, 0] == 0
    assert float(x.grad[0, 1]) == pytest.approx(math.exp(-9.0), rel=1e-3)


@pytest.mark.parametrize("kernel", [
    "-logits.log_softmax(0)[label]", "torch.nn.functional.cross_entropy(logits[None], torch.tensor([label]))",
])  # fmt: skip
def test_exercise_2_does_not_accept_torch_s_own_fp16_kernels_of_the_cpu(kernel: str) -> None:
    loss = eval(f"lambda logits, label: {kernel}", {"torch": torch})
    told = check("02.2", loss, record=False)
    assert told.status == "wrong"
    assert "With logits 9, 0, 0 and class 0 your loss is 0. The true one is 0.000247" in told.message


def test_under_autocast_on_a_cpu_only_the_whole_loss_is_in_fp32() -> None:
    x, right = half(9.0, 0.0)[None], torch.tensor([0])
    with torch.autocast("cpu", dtype=torch.float16):
        assert float(F.cross_entropy(x, right)) == pytest.approx(math.log1p(math.exp(-9.0)), rel=1e-2)
        assert float(F.nll_loss(x.log_softmax(-1), right)) == 0.0


def test_what_was_planted_fails_what_relu_passes() -> None:
    bad = planted()
    assert not bad["ReLU × 1.001"].exact
    assert bad["ReLU × 1.001"].breaks == "Inf from 65472"
    assert not bad["inverse"].runs
    assert repr(bad).splitlines()[2].split() == ["inverse", "no", "–", "nowhere"]


def test_the_formulas_by_hand_all_break(steps: Survey) -> None:
    assert {row.name.split(":")[0]: row.breaks for row in steps} == {
        "sum, one by one": "Inf: 1,024 values of 64",
        "mean": "Inf: 1,024 values of 64",
        "variance": "Inf: values of ± 256",
        "layer norm": "0: values of ± 256",
        "softmax": "NaN from a logit of 11.09",
        "log-softmax": "−Inf if 17.34 below the largest",
        "cross-entropy": "Inf if 17.34 below the largest",
    }


def test_steps_in_fp16_cost_accuracy(steps: Survey, kernels: Survey) -> None:
    """Variance, written as the difference of two means, and a sum, one by one, are off by percents."""
    assert steps["variance: E[x²] − E[x]²"].error > 5, "the true variance is about 1"
    assert steps["sum, one by one"].error > 0.1
    assert steps["softmax: e / sum of e"].spacings > 1 > kernels["softmax"].spacings
    for name in ("log-softmax: log(softmax)", "cross-entropy: −log(p)"):
        assert steps[name].error > 0.1, "the probability of a sure model, 0.9996, has few bits to tell it from 1"


def test_cuda_s_lists_are_the_emulation_s() -> None:
    assert [cuda_list(name) for name in ("matmul", "softmax", "relu", "mean", "var", "max_pool2d")] == [
        "FP16", "FP32", "", "", "", "",
    ]  # fmt: skip


def test_the_autocast_column_is_what_autocast_does(kernels: Survey) -> None:
    x = half(1.0, 2.0, 3.0)
    with torch.autocast("cpu", dtype=torch.float16):
        assert (x.softmax(0).dtype, x.relu().dtype) == (torch.float16, torch.float16)
        assert F.cross_entropy(x[None], torch.tensor([1])).dtype == torch.float32
    assert [row.name for row in kernels if row.kept == "FP32"] == ["cross-entropy"]


def test_the_table_says_the_same_everywhere(kernels: Survey, steps: Survey) -> None:
    lines = repr(kernels).splitlines()
    assert lines[0].split("  ")[0] == "operation"
    assert len(lines) == 14
    assert "below 1 spacing" in lines[1]
    assert "none: exact" in next(line for line in lines if line.startswith("ReLU"))
    assert not any(digit in repr(kernels).replace("65504", "") for digit in ("e-0", "e-1")), "no raw error is shown"
    assert len(repr(steps).splitlines()) == 8
    assert "over 10 %" in repr(steps)
    assert kernels._repr_html_().count("<tr>") == 14
    assert "autocast" not in steps._repr_html_()


def test_an_operation_that_the_device_lacks_is_told_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError('"exp" not implemented for Half')

    monkeypatch.setattr(module, "TRIALS", (Trial("exp", "exp", missing, (4,), lambda s: [s], "{}"),))
    table = survey()
    assert not table["exp"].runs
    assert repr(table).splitlines()[1].split() == ["exp", "no", "–", "nowhere", "FP32"]


def test_an_inexact_max_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of C11 can fail: a ReLU that rounds its result to BF16 is not called exact."""

    def rounding(x: torch.Tensor) -> torch.Tensor:
        return F.relu(x).bfloat16().to(x.dtype) if x.dtype == torch.float16 else F.relu(x)

    monkeypatch.setattr(module, "TRIALS", (Trial("ReLU", "relu", rounding, (256,), lambda s: [s], "{}"),))
    assert not survey()["ReLU"].exact


def test_an_unknown_row_lists_the_known_ones(kernels: Survey) -> None:
    with pytest.raises(KeyError, match="no operation 'gelu'; use one of matmul, conv, ReLU"):
        kernels["gelu"]


def test_limits_are_bisected_on_every_value_of_the_format() -> None:
    assert len(survey_trials.LARGER) == 16 * 1024, "every FP16 value from 1 to 65504"
    assert all(len(trial.push(1.0)) > 0 for trial in (*TRIALS, *BY_HAND))
