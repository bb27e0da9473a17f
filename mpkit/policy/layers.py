"""Layers whose kernels hide their matrix products, in operations that a policy sees: recurrent ones and attention.

The arithmetic, and the order of its roundings, is that of torch's own CPU kernels (aten/src/ATen/native/RNN.cpp). A
GPU's fused kernels keep the sums inside a cell in FP32, so that they round less often.
"""

from collections.abc import Callable, Sequence
from functools import partial
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

State = tuple[Tensor, ...]  # (h,), of an LSTM (h, c): each (rows, features)
Weights = Sequence[Tensor | None]  # W_hh, b_hh, and of an LSTM with projections W_hr
Cell = Callable[[Tensor, State, Weights], State]  # of W_ih x + b_ih (rows, gates x features), state and weights


def _simple(activation: Callable[[Tensor], Tensor], x: Tensor, state: State, weights: Weights) -> State:
    return (activation(_hidden(state, weights) + x),)


def _lstm(x: Tensor, state: State, weights: Weights) -> State:
    """Formulas of torch.nn.LSTM's documentation."""
    i, f, g, o = (_hidden(state, weights) + x).chunk(4, -1)
    c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    return (F.linear(h, weights[2]) if len(weights) > 2 else h), c  # type: ignore[arg-type]


def _gru(x: Tensor, state: State, weights: Weights) -> State:
    """Formulas of torch.nn.GRU's documentation; n + z (h - n) is its (1 - z) n + z h."""
    (r, z, n), (hr, hz, hn) = x.chunk(3, -1), _hidden(state, weights).chunk(3, -1)
    n = (n + hn * (hr + r).sigmoid()).tanh()
    return ((state[0] - n) * (hz + z).sigmoid() + n,)


def _hidden(state: State, weights: Weights) -> Tensor:
    return F.linear(state[0], weights[0], weights[1])  # type: ignore[arg-type]


def _run(cell: Cell, x: Tensor, sizes: list[int], state: State, weights: Weights, back: bool) -> tuple[Tensor, State]:
    """One layer in one direction: the outputs in the order of `x`, and the last state.

    x: (sum of sizes, features), with `sizes` rows in each time step. Sequences are sorted, the longest first, so a step
    with fewer rows than the state concerns the first ones; the others have ended, or, backward, not begun.
    """
    w_ih, b_ih, *others = weights
    steps = torch.split(F.linear(x, w_ih, b_ih), sizes)  # type: ignore[arg-type]
    outputs = []
    for step in reversed(steps) if back else steps:
        rows = len(step)
        new = cell(step, tuple(part[:rows] for part in state), others)
        state = tuple(torch.cat([a, b[rows:]]) if rows < len(b) else a for a, b in zip(new, state, strict=True))
        outputs.append(new[0])
    return torch.cat(outputs[::-1] if back else outputs), state


def _layers(cell: Cell, x: Tensor, sizes: list[int], hx: State, settings: Sequence[Any]) -> tuple[Tensor, State]:
    """All layers and directions. hx: each (layers x directions, batch, features)."""
    flat, biases, layers, dropout, training, both = settings
    ways = 2 if both else 1
    size = len(flat) // (layers * ways)  # W_ih, W_hh, then b_ih, b_hh and W_hr where there are any
    last: list[State] = []
    for layer in range(layers):
        outputs = []
        for way in range(ways):
            w_ih, w_hh, *rest = flat[len(last) * size :][:size]
            b_ih, b_hh, *projection = rest if biases else (None, None, *rest)
            state = tuple(part[len(last)] for part in hx)
            output, state = _run(cell, x, sizes, state, (w_ih, b_ih, w_hh, b_hh, *projection), way == 1)
            outputs.append(output)
            last.append(state)
        x = torch.cat(outputs, -1) if both else outputs[0]
        if dropout and training and layer < layers - 1:
            x = F.dropout(x, dropout)
    return x, tuple(torch.stack(parts) for parts in zip(*last, strict=True))


def _recurrent(cell: Cell, x: Tensor, *args: Any) -> tuple[Tensor, ...]:
    """torch.lstm and its like, with their two signatures: (x, batch_sizes, hx, …) packed, (x, hx, …, batch_first)."""
    if isinstance(args[2], bool):
        hx, *settings, batch_first = args
        steps = x.transpose(0, 1) if batch_first else x
        if not len(steps):
            raise ValueError(f"a sequence of at least one step is asked for, but x of shape {tuple(x.shape)} came.")
        sizes = [steps.shape[1]] * len(steps)
        out, last = _layers(cell, steps.flatten(0, 1), sizes, _state(hx), settings)
        out = out.reshape(*steps.shape[:2], out.shape[-1])
        return (out.transpose(0, 1) if batch_first else out), *last
    sizes, hx, *settings = args[0].tolist(), *args[1:]
    out, last = _layers(cell, x, sizes, _state(hx), settings)
    return out, *last


def _state(hx: Tensor | Sequence[Tensor]) -> State:
    return (hx,) if isinstance(hx, Tensor) else tuple(hx)


def _one_step(cell: Cell, x: Tensor, hx: Any, w_ih: Tensor, w_hh: Tensor, b_ih: Any = None, b_hh: Any = None) -> Any:
    """torch.lstm_cell and its like: x (batch, features); hx a state, as a tensor if it is one."""
    state = cell(F.linear(x, w_ih, b_ih), _state(hx), (w_hh, b_hh))
    return state[0] if isinstance(hx, Tensor) else state


def _body(name: str, *args: Any, **kwargs: Any) -> Any:
    """A function of F that is Python: its body, with a no where it would hand itself to the mode."""
    torchs, no = getattr(F, name), lambda *_: False
    body = FunctionType(torchs.__code__, {**vars(F), "has_torch_function": no, "has_torch_function_variadic": no})
    body.__defaults__, body.__kwdefaults__ = torchs.__defaults__, torchs.__kwdefaults__
    return body(*args, **kwargs)


CELLS: dict[str, Cell] = {
    "lstm": _lstm,
    "gru": _gru,
    "rnn_tanh": partial(_simple, torch.tanh),
    "rnn_relu": partial(_simple, torch.relu),
}
# By the name of the function that they replace, whose arguments they take.
LAYERS: dict[str, Callable[..., Any]] = {
    name: partial(_body, name) for name in ("multi_head_attention_forward", "linear_cross_entropy")
}
LAYERS |= {name: partial(_recurrent, cell) for name, cell in CELLS.items()}
LAYERS |= {f"{name}_cell": partial(_one_step, cell) for name, cell in CELLS.items()}
