"""Which parameters a policy can run with."""

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mpkit.trees import is_distributed


def require_parameters(model: nn.Module, stored: bool, engine: str) -> None:
    """TypeError: a part is scripted; a parameter is not float32, or cannot be `stored` in a low format by the engine.

    One walk: every entrance of a block makes it.
    """
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError("a scripted module hides its operations from emulation; pass the model as it was before.")
        for name, p in module._parameters.items():
            if p is not None:
                _require(f"{path}.{name}" if path else name, p, stored, engine)


def _require(name: str, p: Tensor, stored: bool, engine: str) -> None:
    if p.is_complex():
        raise TypeError(
            f"parameter {name} is {p.dtype}, and no policy rounds complex numbers; keep it as a float32 parameter of "
            "shape (…, 2), and read it by torch.view_as_complex."
        )
    if p.dtype != torch.float32:
        raise TypeError(
            f"parameter {name} is {p.dtype}; a policy starts from float32 parameters. Call model.float() first; "
            'the policy decides what is rounded (for 16-bit weights: Policy.preset("fp16-true")).'
        )
    if stored and is_lazy(p):
        raise TypeError(f"parameter {name} has no values yet that could be rounded; run the model once: model(batch).")
    if stored and engine == "native" and is_distributed(p):
        raise TypeError(
            f"parameter {name} is a DTensor, of which this policy's native engine makes no low copy; let "
            "fully_shard(…, mp_policy=MixedPrecisionPolicy(param_dtype=…)) make it, under no policy, or emulate."
        )
