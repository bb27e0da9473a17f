"""Which format each stage of a training step uses, and how to run a model under that choice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from mpkit.casting import cast
from mpkit.formats import BF16, FP16, FP32, TF32, FloatFormat, require_format
from mpkit.policy.application import Application
from mpkit.policy.emulation import Emulation
from mpkit.policy.hardware import device_of, in_hardware
from mpkit.policy.kernels import require_native
from mpkit.policy.meter import Meter
from mpkit.policy.native import DTYPES, Kind, kind_of, natively
from mpkit.policy.native_linear import NativeLinear
from mpkit.policy.nesting import active, replacing
from mpkit.policy.operations import LISTS, Lists
from mpkit.policy.parameters import require_parameters
from mpkit.policy.recipes import FP8_BLOCKS, FP8_MIXED, INT8_MIXED, MXFP8_ALL, NVFP4_ALL, LinearRecipe
from mpkit.policy.stepping import emulated_around_steps
from mpkit.policy.tf32 import tf32


@dataclass(frozen=True)
class Policy:
    """The formats of one training step.

    Args:
        params: the weights that the forward pass reads. FP16 here means that the whole model is stored in FP16.
        forward: operands and results of matrix work.
        backward: gradients.
        loss: reductions, exponentials and the loss.
        update: the weights that the optimizer changes. FP32 beside FP16 `params` means FP32 master weights
            (Micikevicius et al. 2018, arXiv 1710.03740, section 3.1). Optimizer state stays FP32 in every policy.
        linear: scaled formats, of 8 bits or fewer, of what linear layers multiply (every F.linear with a matrix of
            weights); their results, and all else, are as the other fields say. None: they are no exception.

    The words follow JMP's policy (param, compute, output), split where the claim under test needs it.
    """

    params: FloatFormat = FP32
    forward: FloatFormat = FP32
    backward: FloatFormat = FP32
    loss: FloatFormat = FP32
    update: FloatFormat = FP32
    linear: LinearRecipe | None = None

    def __post_init__(self) -> None:
        for stage in fields(self):
            if stage.name != "linear":
                require_format(getattr(self, stage.name))
        if not isinstance(self.linear, LinearRecipe | None):
            came = f"{self.linear!r} ({type(self.linear).__name__})"
            raise TypeError(f"linear is a LinearRecipe of mpkit.policy or None, but {came} came.")

    @staticmethod
    def preset(name: str) -> Policy:
        """A policy by name: one of `PRESETS`.

        Raises:
            ValueError: unknown name; the text lists the known ones.
        """
        if name not in PRESETS:
            raise ValueError(f"policy {name!r} is unknown; use one of {', '.join(PRESETS)}.")
        return PRESETS[name]

    def kind(self) -> Kind:
        """How hardware can do it; see `mpkit.policy.native`. ValueError: it cannot."""
        return kind_of(self.params, self.forward, self.backward, self.loss)

    def engine_on(self, device: torch.device | str) -> str:
        """What "auto" stands for on a device: "native" if it has the policy's formats in hardware, else "emulated".

        On a CPU, and for policies that no native engine runs, it is "emulated".
        """
        formats = {self.params, self.forward, self.backward, self.loss, self.update}
        try:
            self.kind()
            if self.linear is not None:
                require_native(self.linear, torch.device(device))
        except ValueError:
            return "emulated"
        here = torch.device(device).type == "cuda" and all(in_hardware(fmt, device) for fmt in formats)
        return "native" if here else "emulated"

    def engine_for(self, model: nn.Module, engine: str) -> str:
        """`engine`, or what "auto" stands for where the model is. ValueError: it is unknown."""
        if engine not in ("emulated", "native", "auto"):
            raise ValueError(
                f'engine={engine!r} is unknown; use "emulated" (every machine), "native" (a GPU) or "auto" (what '
                "the model's device has)."
            )
        return engine if engine != "auto" else self.engine_on(device_of(model))

    def apply(
        self, model: nn.Module, engine: str = "emulated", meter: Meter | None = None, lists: str = "cuda"
    ) -> Application:
        """Run `model` under this policy inside the with block.

        What comes back can be entered again and again, as a `torch.autocast`; so a script may make it once.
        Put the forward pass and the loss inside; the backward pass and the optimizer may be inside or after it. With
        activation checkpointing the backward pass belongs inside too; natively that works for FP32 and what autocast
        does (fp16-mixed, bf16-mixed). An apply inside another one, or inside torch.autocast, replaces it there.
        nn.MultiheadAttention, nn.LSTM and its like run written out in matrix products, which takes longer.
        Buffers and optimizer state stay FP32, gradients are unscaled in FP32, and other threads are not emulated.
        Parameters and data stay float32 tensors. If `update` is a 16-bit format, the parameters are rounded to it
        on entry and after every optimizer step inside the block, as after `model.half()`.

        Args:
            model: any `nn.Module` with float32 parameters.
            engine: "emulated" runs on any machine, and rounds float32. "native" uses the device's own formats, for the
                presets; see `mpkit.policy.native`. Put the backward pass inside the block then. On a CPU native FP16
                is slow. "auto" is what `engine_on` says of the model's device.
            meter: counts the gradient values that rounding flushes to zero; emulation only.
            lists: whose autocast says which operations run in `forward` and which in `loss`: "cuda" or "cpu". They
                differ: softmax, layer_norm, pow, exp and sum are wide on CUDA, and in their input's format on a CPU.
                Natively it is the device's.

        Raises:
            ValueError: unknown engine or lists; a policy or a device that has no native engine; with a native engine a
                meter, or lists="cpu".
            RuntimeError: in the forward pass, F.binary_cross_entropy where CUDA's autocast refuses it.
            TypeError: `model` is no module or a compiled script, or a parameter is not float32; where weights are
                stored low, one of a lazy layer without values, and natively a DTensor.
        """
        self.require(model, engine, meter, lists)
        return Application(lambda: self.running(model, self.require(model, engine, meter, lists), meter, lists))

    def require(self, model: nn.Module, engine: str, meter: Meter | None = None, lists: str = "cuda") -> str:
        """The checks of `apply` and its errors; returns "emulated" or "native"."""
        if not isinstance(model, nn.Module):
            raise TypeError(f"a torch.nn.Module is asked for, but a {type(model).__name__} came; pass the model.")
        engine = self.engine_for(model, engine)
        require_parameters(model, self.params != FP32 or self.update != FP32, engine)
        if lists not in LISTS:
            raise ValueError(f'lists={lists!r} is unknown; use "cuda" or "cpu", whose autocast is to be followed.')
        if engine == "native":
            if lists != "cuda":
                raise ValueError(f'a native engine has its device\'s lists; lists={lists!r} needs engine="emulated".')
            if meter is not None:
                raise ValueError('real FP16 does not tell what it flushes; a meter needs engine="emulated".')
            self.kind()  # or its error
            if self.linear is not None:
                require_native(self.linear, device_of(model))
        return engine

    def running(
        self, model: nn.Module, engine: str, meter: Meter | None = None, lists: str = "cuda"
    ) -> AbstractContextManager[nn.Module]:
        """What `apply` enters, for a loop that called `require` once: its walk through the model is not made again."""
        return self._run(model, meter, LISTS[lists]) if engine == "emulated" else self._run_natively(model)

    @contextmanager
    def _run_natively(self, model: nn.Module) -> Iterator[nn.Module]:
        self.store_(model.parameters())
        with ExitStack() as stack:
            if self.update != FP32:  # a hook costs every optimizer's every step
                hook = register_optimizer_step_post_hook(lambda *_: self.store_(model.parameters()))
                stack.callback(hook.remove)
            block = stack.enter_context(replacing(device_of(model).type))
            stack.enter_context(natively(block, self.kind(), self.forward, self.loss, model))
            if self.linear is not None:
                linear = NativeLinear(self.linear, DTYPES.get(self.forward, torch.float32))
                stack.enter_context(active(block, linear))
                stack.enter_context(linear)
            yield model

    @contextmanager
    def _run(self, model: nn.Module, meter: Meter | None, lists: Lists) -> Iterator[nn.Module]:
        device = device_of(model).type
        exact = tf32(False) if device == "cuda" else nullcontext()
        with replacing(device) as block, exact:  # emulated is what FP32 arithmetic gives
            if self == Policy():
                yield model
                return
            low, masters = self.params != FP32, self.update == FP32
            mode = Emulation(self.forward, self.backward, self.loss, low, meter, lists, self.linear, masters)
            self.store_(model.parameters())
            with active(block, mode), mode, emulated_around_steps(model, mode, self.store_):
                yield model

    def store_(self, params: Iterable[Tensor]) -> None:
        """Round weights in place to the format of `update`. Inside `apply` this happens after every optimizer step."""
        if self.update == FP32:
            return
        with torch.no_grad(), torch._C.DisableTorchFunction():
            for p in params:
                p.copy_(cast(p, self.update))


PRESETS: dict[str, Policy] = {
    "fp32": Policy(),
    "tf32": Policy(forward=TF32, backward=TF32),
    "fp16-true": Policy(FP16, FP16, FP16, FP16, FP16),
    "fp16-master": Policy(FP16, FP16, FP16, FP32, FP32),
    "fp16-mixed": Policy(FP32, FP16, FP16, FP32, FP32),
    "bf16-true": Policy(BF16, BF16, BF16, BF16, BF16),
    "bf16-mixed": Policy(FP32, BF16, BF16, FP32, FP32),
    # The article's pipeline, literally: FP16 forward, FP32 loss, FP32 backward, FP32 update.
    "article": Policy(FP32, FP16, FP32, FP32, FP32),
}
# bf16-mixed, and linear layers below 16 bits.
PRESETS |= {
    str(recipe): Policy(FP32, BF16, BF16, FP32, FP32, recipe)
    for recipe in (FP8_MIXED, FP8_BLOCKS, MXFP8_ALL, NVFP4_ALL, INT8_MIXED)
}
