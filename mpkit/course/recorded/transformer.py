"""Figures that `python -m mpkit record-transformer` measured on a named GPU: speed, memory, energy and final losses."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class TransformerRecord:
    """One machine's figures.

    `speed[model][policy]`: tokens_per_s, ms (median of a step), joules_per_million (tokens; None without a counter),
    peak_GiB. `sizes[model]`: parameters, layers, width, heads, context, batch. `losses[model][run][seed]`: held-out
    loss in nats of the character models after `steps` steps. `curves`: the same, training loss every 20 steps, mean
    over seeds.
    """

    gpu: str
    torch: str
    date: str
    command: str
    steps: int
    sizes: dict[str, dict[str, int]]
    speed: dict[str, dict[str, dict[str, float]]]
    losses: dict[str, dict[str, list[float]]]
    curves: dict[str, dict[str, list[float]]]

    @classmethod
    def load(cls, name: str = "transformer_nvidia_h200", folder: Path = FOLDER) -> TransformerRecord:
        """Read a record. ValueError: there is none of that name; the text lists the known."""
        path = folder / f"{name}.json"
        if not path.exists():
            known = ", ".join(sorted(one.stem for one in folder.glob("transformer_*.json"))) or "none"
            raise ValueError(
                f"there is no record {name!r}; known: {known}. To make one: python -m mpkit record-transformer."
            )
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{field.name: data[field.name] for field in fields(cls)})

    @property
    def source(self) -> str:
        """Where the figures come from, in a line."""
        return f"Recorded on an {self.gpu}, torch {self.torch}, {self.date}: {self.command}"

    def speedup(self, model: str, policy: str) -> float:
        """How many times as many tokens a second as FP32."""
        rows = self.speed[model]
        return rows[policy]["tokens_per_s"] / rows["fp32"]["tokens_per_s"]
