"""Machines that are not here: what torch says of a GPU, put in its mouth."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from mpkit.course import gpu

H100, T4, P100 = "NVIDIA H100 80GB HBM3", "Tesla T4", "Tesla P100-PCIE-16GB"
CAPABILITY = {H100: (9, 0), T4: (7, 5), P100: (6, 0)}
BUILT_FOR = ("sm_75", "sm_80", "sm_86", "sm_90a", "sm_100", "sm_120", "compute_120")
TOO_OLD = "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver"


def machine(
    monkeypatch: pytest.MonkeyPatch,
    card: str = "",
    cuda: str | None = "13.0",
    hip: str | None = None,
    mps: bool = False,
    nvidia: bool | None = None,
    step: Exception | None = None,
    init: Exception | None = None,
    built_for: Sequence[str] = BUILT_FOR,
) -> None:
    """A machine whose torch sees this card, or none.

    `cuda` and `hip` are what torch is built with, `nvidia` is whether a card seems to be here (default: if torch sees
    one), `step` and `init` are what the first step and the start of CUDA raise.
    """

    def fail(error: Exception | None) -> None:
        if error is not None:
            raise error

    for name in ("MPKIT_DEVICE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    fakes = {
        "is_available": lambda: bool(card),
        "device_count": lambda: int(bool(card)),
        "get_device_name": lambda *_: card,
        "get_device_capability": lambda *_: CAPABILITY[card],
        "get_arch_list": lambda: list(built_for),
        "init": lambda: fail(init),
        "manual_seed_all": lambda _: None,  # seeding would reach for the GPU
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(gpu, "first_step", lambda: fail(step))
    monkeypatch.setattr(gpu, "nvidia_here", lambda: bool(card) if nvidia is None else nvidia)
