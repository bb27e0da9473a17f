"""The walk over nested tensors against torch's own, and the containers that models really use."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from typing import Any, NamedTuple

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch.utils import _pytree

import mpkit
from mpkit.formats import FP16
from mpkit.policy.policy import Policy
from mpkit.trees import leaves_in, map_leaves, map_tensors, tensors_in


class Pair(NamedTuple):
    first: Any
    second: Any


LEAVES = st.one_of(st.floats(allow_nan=False), st.text(max_size=2), st.none(), st.just(torch.ones(2)))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.builds(Pair, inner, inner),
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3).map(OrderedDict),
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(TREES)
def test_leaves_and_shape_are_those_of_torch(tree: Any) -> None:
    known, spec = _pytree.tree_flatten(tree)
    mine = list(leaves_in(tree))
    assert [id(leaf) for leaf in mine if leaf is not None] == [id(leaf) for leaf in known if leaf is not None]
    assert [id(t) for t in tensors_in(tree)] == [id(leaf) for leaf in known if isinstance(leaf, Tensor)]
    labels = iter(range(100))
    marked = map_leaves(lambda leaf: next(labels), tree)
    assert _pytree.tree_flatten(marked)[1] == spec
    doubled = map_tensors(lambda t: t * 2, tree)
    assert all(torch.equal(t, torch.full((2,), 2.0)) for t in tensors_in(doubled))
    assert [leaf for leaf in leaves_in(doubled) if not isinstance(leaf, Tensor)] == [
        leaf for leaf in mine if not isinstance(leaf, Tensor)
    ]


def test_containers_keep_what_they_hold_besides() -> None:
    counted: defaultdict[str, Any] = defaultdict(list, a=torch.ones(1))
    changed = map_tensors(lambda t: t + 1, counted)
    assert type(changed) is defaultdict
    assert changed["new"] == []
    assert "new" not in counted
    best = torch.tensor([[1.0, 3.0]]).max(dim=1)  # torch's own named result
    halved = map_tensors(lambda t: t / 2, best)
    assert type(halved) is type(best)
    assert halved.values.item() == 1.5
    assert map_tensors(lambda t: t, torch.Size([2, 3])) == torch.Size([2, 3])


class Closed(OrderedDict[str, Any]):
    """Refuses update(), as the outputs of transformers' models do."""

    def update(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("You cannot use update")


def test_dicts_that_refuse_update_or_add_in_it() -> None:
    changed = map_tensors(lambda t: t * 2, Closed(loss=torch.ones(1), n=3))
    assert (type(changed), changed["loss"].item(), changed["n"]) == (Closed, 2.0, 3)
    counted = map_tensors(lambda t: t * 2, Counter({"a": torch.ones(1), "n": 3}))  # type: ignore[dict-item]
    assert (type(counted), counted["a"].item(), counted["n"]) == (Counter, 2.0, 3)
    assert mpkit.LossScaler(mpkit.StaticScale(8.0)).scale(Closed(loss=torch.ones(1)))["loss"].item() == 8.0


class Operands(NamedTuple):
    left: Tensor
    right: Tensor


@pytest.mark.parametrize("call", [torch.linalg.multi_dot, torch.cat, torch.stack])
def test_a_named_tuple_goes_through_every_policy(call: Any) -> None:
    operands = Operands(torch.full((2, 2), 1.0 + 2**-12), torch.eye(2))
    for name in ("fp16-mixed", "fp16-true", "article"):
        with Policy.preset(name).apply(torch.nn.Linear(1, 1)):
            out = call(operands)
        if call is torch.linalg.multi_dot:  # a matrix operation, so 1 + 2^-12 is rounded to FP16 first
            assert torch.equal(out, torch.ones(2, 2)), name
    assert FP16.epsilon == 2**-10
