"""The rules that libraries use by default, each with its source file.

What a preset does not model: libraries also differ in what they test. fairseq tests the gradient's norm, fp16_utils a
float32 sum, tf-legacy the unscaled gradients. A rule here is told `found_inf` and decides the rest.
"""

from mpkit.scaling.article import ArticleRule
from mpkit.scaling.constant import NoScaling
from mpkit.scaling.dynamic import DynamicScale
from mpkit.scaling.gradient_rules import HistogramScale, LogMaxScale
from mpkit.scaling.library import LibraryScale
from mpkit.scaling.rule import ScaleRule

PRESETS: dict[str, ScaleRule] = {
    "mpkit": DynamicScale(),
    "none": NoScaling(),
    "article": ArticleRule(),  # the article, section 4.2, with the unscaled norm
    "article-scaled-norm": ArticleRule(norm="scaled"),
    # torch/amp/grad_scaler.py, aten/src/ATen/native/cpu/AmpGradScalerKernels.cpp: only the scaled gradients are
    # tested, so that with a scale below 2^-127 (144 overflows from the start) Inf and NaN reach the weights.
    "torch": LibraryScale(min_scale=None, exact_interval=True, check_unscaled=False),
    # torch/distributed/fsdp/sharded_grad_scaler.py: on CPU it updates in Python, without torch's guard against Inf.
    "torch-fsdp": LibraryScale(min_scale=None, exact_interval=True, grow_to_inf=True, check_unscaled=False),
    # apex/amp/scaler.py, until May 2025
    "apex-amp": LibraryScale(min_scale=None, max_scale=2.0**24, exact_interval=True, check_unscaled=False),
    # apex/fp16_utils/loss_scaler.py: the scale is a Python float and may leave float32's range; here it may not.
    "apex-fp16_utils": DynamicScale(init_scale=2.0**32, growth_interval=1000, check_unscaled=False),
    # deepspeed/runtime/fp16/loss_scaler.py with the defaults of deepspeed/runtime/precision_config.py (ZeRO)
    "deepspeed": LibraryScale(growth_interval=1000, hysteresis=2, late_growth=1, at_floor="stop", check_unscaled=False),
    # fairseq/optim/dynamic_loss_scaler.py: --fp16-init-scale 2^7; window 2^14 / workers / update_freq, here 1 and 1;
    # --fp16-scale-tolerance 0, which shrinks at every overflow.
    "fairseq": LibraryScale(
        init_scale=2.0**7, growth_interval=2**14, min_scale=1e-4, at_floor="stop before", check_unscaled=False
    ),
    # megatron/core/optimizer/grad_scaler.py
    "megatron": LibraryScale(
        init_scale=2.0**32,
        growth_interval=1000,
        hysteresis=2,
        exact_interval=True,
        grow_to_inf=True,
        check_unscaled=False,
    ),
    # jmp/_src/loss_scale.py; the first scale is the user's choice, 2^15 in its documentation
    "jmp": DynamicScale(init_scale=2.0**15),
    # keras/src/optimizers/loss_scale_optimizer.py: neither floor nor cap
    "keras": LibraryScale(
        init_scale=2.0**15, min_scale=None, exact_interval=True, grow_to_inf=True, check_unscaled=False
    ),
    # tensorflow/python/training/experimental/loss_scale.py
    "tf-legacy": DynamicScale(init_scale=2.0**15),
    # open_seq2seq/optimizers/automatic_loss_scaler.py at 8681d381: starts at its cap (2^24 in earlier versions)
    "openseq2seq-backoff": DynamicScale(init_scale=2.0**14, max_scale=2.0**14),
    "openseq2seq-logmax": LogMaxScale(),
    # willow/src/popx/op/lossscaleupdatex.cpp; the first scale is the user's choice
    "popart": HistogramScale(),
    # python/paddle/amp/grad_scaler.py, GradScaler: decr_every_n_nan_or_inf = 1
    "paddle": LibraryScale(
        min_scale=None, refill="shrink", exact_interval=True, grow_to_inf=True, check_unscaled=False
    ),
    # mindspore/python/mindspore/amp.py; start and window are required there: those of its documentation
    "mindspore": DynamicScale(init_scale=2.0**24),
}


def preset(name: str) -> ScaleRule:
    """Return the rule that a library uses by default; an unknown name is a ValueError that lists the known.

    "torch" is `torch.amp.GradScaler`'s exactly: no floor, no cap, and only the scaled gradients tested.
    """
    if name not in PRESETS:
        raise ValueError(f"preset {name!r} is unknown. Known presets: {', '.join(sorted(PRESETS))}.")
    return PRESETS[name]
