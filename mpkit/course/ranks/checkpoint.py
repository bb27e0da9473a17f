"""One rank of many: a training that is sharded by FSDP2, saved in the middle, and resumed.

    … -m mpkit.course.ranks.checkpoint FOLDER save        trains 6 steps, saves, trains 6 more
    … -m mpkit.course.ranks.checkpoint FOLDER resume 48   loads into fresh objects, trains 6 more

The number is the global batch: how many images all ranks together see in a step.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.nn.functional as F
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.fsdp import fully_shard

import mpkit
from mpkit.course.nets.digits import digits
from mpkit.course.ranks import GLOBAL_BATCH
from mpkit.course.ranks.rank import Rank, answer
from mpkit.course.ranks.replicas import net

STEPS = 6


class Training:
    """Model, optimizer and scaler. For torch.distributed.checkpoint all that it needs are the two methods at the end.

    A scaler has them too, so it could be saved by itself: its state is plain numbers, the same on all ranks.
    """

    def __init__(self, rank: Rank, seed: int) -> None:
        self.rank, self.step = rank, 0
        self.model: Any = net(rank, seed=seed)
        fully_shard(self.model, mesh=rank.mesh)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.2, momentum=0.9)
        self.scaler = mpkit.LossScaler(mpkit.DynamicScale(growth_interval=4))

    def train(self, steps: int, global_batch: int) -> None:
        """Each rank takes its part of the global batch; FSDP2 averages, so each part must have the same size."""
        data, size = digits(self.rank.device), self.rank.size
        share = global_batch // size
        for _ in range(steps):
            first = self.step * GLOBAL_BATCH + self.rank.number * share
            x, y = data.train_images[first : first + share], data.train_labels[first : first + share]
            self.optimizer.zero_grad()
            self.scaler.scale(F.cross_entropy(self.model(x), y)).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.step += 1

    def weights(self) -> list[float]:
        """All of them, whole. Every rank must call this."""
        return torch.cat([p.full_tensor().flatten() for p in self.model.parameters()]).tolist()

    def place(self) -> list[float]:
        """Where it is: step, loss scale, and how many clean steps the scaler has counted towards the next growth."""
        scaler = self.scaler.state_dict()
        return [self.step, scaler["scale"], scaler["growth_tracker"]]

    def state_dict(self) -> dict[str, Any]:
        """Every rank's own part of model and optimizer, and what they share."""
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer, "scaler": self.scaler.state_dict(), "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave, on as many ranks as there are now."""
        set_state_dict(self.model, self.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]


def resumed(rank: Rank, folder: str, global_batch: int) -> dict[str, Any]:
    """Load into fresh objects with other weights, and go on."""
    training = Training(rank, seed=1)
    load({"training": training}, checkpoint_id=folder)
    return later(training, global_batch)


def later(training: Training, global_batch: int) -> dict[str, Any]:
    """Go on for STEPS steps: where it was, where it ends, and the weights then."""
    begin = training.place()
    training.train(STEPS, global_batch)
    return {"begin": begin, "end": training.place(), "weights": training.weights()}


def work(rank: Rank) -> dict[str, Any]:
    """`save`: the straight run and the resumed one; `resume`: a resumed one for each global batch."""
    folder, what, *batches = sys.argv[1:]
    if what == "resume":
        return {batch: resumed(rank, folder, int(batch)) for batch in batches}
    training = Training(rank, seed=0)
    training.train(STEPS, GLOBAL_BATCH)
    save({"training": training}, checkpoint_id=folder)
    return {"straight": later(training, GLOBAL_BATCH), str(GLOBAL_BATCH): resumed(rank, folder, GLOBAL_BATCH)}


if __name__ == "__main__":
    answer(work)
