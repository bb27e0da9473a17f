"""`mpkit.diagnose_checkpoint`: what was lost on the way into a checkpoint, or out of it?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mpkit.diagnosis.diagnosis import Diagnosis
from mpkit.diagnosis.words import told

COMPARED = ("names, values and states compared",)
SCALED = ({"scale", "growth_factor"}, {"scale", "rule"}, {"scale", "growth_tracker"})  # a scaler's state has these


def diagnose_checkpoint(
    state: Mapping[str, Any], model: nn.Module, optimizer: Any = None, scaler: Any = None
) -> Diagnosis:
    """Hold a loaded checkpoint against what it was loaded into.

    Args:
        state: what `torch.load` gave: a dict with the model's state dict in it at any depth, or that itself.
        model: as it is after `load_state_dict`. optimizer, scaler: likewise, if the training goes on with them.

    It looks for weights that are finite in the checkpoint and not in the model, since their dtype is too narrow; for
    Inf and NaN in the checkpoint; for weights that were not loaded; and for a missing state of optimizer or scaler.

    Raises:
        TypeError: `state` is no dict, or `model` no module. ValueError: nothing in `state` is a parameter of `model`.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"state must be the dict that torch.load gave, but {type(state).__name__} came.")
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, but {type(model).__name__} came.")
    own = dict(model.state_dict())
    saved = _weights(state, set(own))
    if saved is None:
        known = ", ".join(list(own)[:3])
        raise ValueError(f"nothing in the state is a parameter of this model, which has {known}; pass its own "
                         "checkpoint.")  # fmt: skip
    for look in (_too_narrow(saved, own), _bad(saved), _not_loaded(saved, own), _forgotten(state, optimizer, scaler)):
        for found in look:
            return replace(found, tests=COMPARED)
    return Diagnosis(
        "healthy",
        tests=COMPARED,
        proof=f"{len(saved)} tensors of the checkpoint are those of the model.",
    )


def _weights(state: Mapping[str, Any], names: set[str]) -> dict[str, Tensor] | None:
    """The dict inside `state` that has most of the names; a prefix that all of its names have is taken off."""
    best: dict[str, Tensor] = {}
    for inside in _dicts(state):
        tensors = {str(k): v for k, v in inside.items() if isinstance(v, Tensor)}
        for prefix in ("", "module.", "model.", "_orig_mod."):
            here = {k.removeprefix(prefix): v for k, v in tensors.items()}
            if len(names & here.keys()) > len(names & best.keys()):
                best = here
    return best if names & best.keys() else None


def _dicts(state: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield state
    for value in state.values():
        for inner in value if isinstance(value, list | tuple) else (value,):
            if isinstance(inner, Mapping):
                yield from _dicts(inner)


def _too_narrow(saved: dict[str, Tensor], own: dict[str, Tensor]) -> Iterator[Diagnosis]:
    for name, tensor in saved.items():
        if name not in own or not tensor.is_floating_point() or not own[name].is_floating_point():
            continue
        gone = int(((tensor != 0).cpu() & (own[name] == 0).cpu()).sum()) if own[name].shape == tensor.shape else 0
        if gone > 0.01 * tensor.numel():
            yield Diagnosis("checkpoint", name, f"{gone:,} of {tensor.numel():,} values of {name} are not 0 in the "
                            f"checkpoint ({str(tensor.dtype)[6:]}), and 0 in the model ({str(own[name].dtype)[6:]}).",
                            "They were counted.", "Load it into a model of its own dtype.\nmodel.float()")  # fmt: skip
        lost = tensor.float().isfinite().cpu() & ~own[name].float().isfinite().cpu()
        if count := int(lost.sum()):
            dtype, into = str(tensor.dtype)[6:], str(own[name].dtype)[6:]
            largest = float(tensor.float().cpu()[lost].abs().max())
            yield Diagnosis(
                "checkpoint", name,
                f"{count:,} values of {name} are finite in the checkpoint ({dtype}, up to {told(largest)}) and Inf in "
                f"the model, which is {into} and ends at {told(torch.finfo(own[name].dtype).max)}.",
                f"Loaded into {dtype} all of them are finite.",
                f"Load it into a model of its own dtype, or of float32.\nmodel = model.to(torch.{dtype})",
            )  # fmt: skip


def _bad(saved: dict[str, Tensor]) -> Iterator[Diagnosis]:
    for name, tensor in saved.items():
        if tensor.is_floating_point() and (count := int((tensor.isnan() | (tensor.float() == torch.inf)).sum())):
            yield Diagnosis("poisoned state", name, f"{name} has {count:,} values in the file that are Inf or NaN.",
                            "They were counted in the file, before anything was computed.",
                            "Take an earlier checkpoint.")  # fmt: skip


def _not_loaded(saved: dict[str, Tensor], own: dict[str, Tensor]) -> Iterator[Diagnosis]:
    there = {own[name].data_ptr() for name in saved if name in own}  # tied weights are saved once, or twice
    missing = [name for name in own if name not in saved and own[name].data_ptr() not in there]
    other = [n for n, t in saved.items() if n in own and own[n].shape == t.shape
             and not torch.equal(own[n].cpu(), t.to(own[n].dtype).cpu())]  # fmt: skip
    for names, what in ((missing, "is not in the checkpoint"), (other, "has other values in the model")):
        if names:
            yield Diagnosis("checkpoint", names[0], f"{names[0]} {what}"
                            f"{f', and {len(names) - 1} more' if len(names) > 1 else ''}.",
                            "Names and values were compared.", "Load with strict=True, before the first step.\n"
                            "model.load_state_dict(state, strict=True)")  # fmt: skip


def _forgotten(state: Mapping[str, Any], optimizer: Any, scaler: Any) -> Iterator[Diagnosis]:
    inside = list(_dicts(state))
    if (
        scaler is not None
        and getattr(scaler, "is_enabled", lambda: True)()
        and not any(keys <= one.keys() for one in inside for keys in SCALED)
    ):
        now = float(scaler.get_scale())
        yield Diagnosis(
            "loss scale", "scaler (not in the checkpoint)",
            f"The checkpoint has no state of the scaler, so its scale is {told(now)} again, wherever the run had come "
            "to: each halving on the way back is a skipped step.",
            "No dict in the checkpoint holds a scale.",
            'Save the scaler with the rest, and load it.\ntorch.save({..., "scaler": scaler.state_dict()}, path)',
        )  # fmt: skip
    if optimizer is not None and not any("param_groups" in one for one in inside):
        yield Diagnosis("checkpoint", "optimizer (not in the checkpoint)", "The checkpoint has no state of the "
                        "optimizer, so its moments begin at 0 again.", "No dict in the checkpoint has param_groups.",
                        'Save it with the rest.\ntorch.save({..., "optimizer": optimizer.state_dict()})')  # fmt: skip
