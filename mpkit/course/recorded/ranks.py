"""What `python -m mpkit record-ranks` measured: the two trainings of `examples/` on one and on several GPUs."""

from dataclasses import dataclass
from typing import Any, ClassVar

from mpkit.course.recorded.machine import MachineRecord


@dataclass(frozen=True)
class RanksRecord(MachineRecord):
    """One machine's figures, by example: "ddp" and "fsdp". Lists have one entry a rank.

    Attributes:
        model, batch, steps: what was timed, images a step on each rank, and steps of a run.
        nccl: its version; "" where ranks met over gloo.
        images[example][ranks]: images a second of all ranks together.
        planted: {"data": [step, rank], "gradient": [step, rank]}: where an Inf was put in, before and after the sum.
        skipped[example], scale[example]: steps that each rank skipped, and its scale at the end.
        checksum[example][run]: of each rank's weights, and the scale: a "straight" run, the same "again", and one
            "resumed" by fresh processes from what the straight one had saved half way.
        note: where the record is not what its command gives; "" where it is.
    """

    KIND: ClassVar[str] = "ranks"
    MACHINE: ClassVar[str] = "nvidia_h200"
    model: str
    batch: int
    steps: int
    nccl: str
    images: dict[str, dict[int, float]]
    planted: dict[str, list[int]]
    skipped: dict[str, list[list[int]]]
    scale: dict[str, list[float]]
    checksum: dict[str, dict[str, list[str]]]
    note: str

    @classmethod
    def figures(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Numbers of ranks become numbers again."""
        images = {name: {int(n): v for n, v in row.items()} for name, row in data["images"].items()}
        return super().figures({"note": "", **data, "images": images})

    def agree(self, example: str) -> bool:
        """Whether all ranks skipped the same steps, the planted ones among them, and ended with one scale and model."""
        planted = {step for step, _ in self.planted.values()}
        skipped = [set(steps) for steps in self.skipped[example]]
        same = len(set(self.scale[example])) == len(set(self.checksum[example]["straight"])) == 1
        return same and all(planted <= one == skipped[0] for one in skipped)

    def bit_equal(self, example: str) -> bool | None:
        """Whether the resumed run ended as the straight one; None if not even the same run did so twice."""
        runs = self.checksum[example]
        return runs["straight"] == runs["resumed"] if runs["straight"] == runs["again"] else None

    def speedup(self, example: str) -> float:
        """How many times as many images a second on all GPUs as on one."""
        row = self.images[example]
        return row[max(row)] / row[1]
