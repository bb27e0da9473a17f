"""What an operation is called, and which line of the user's code asked for it."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from mpkit.casting import cast, fake_cast
from mpkit.policy.operations import is_in_place
from mpkit.tracing.event import Where

HERE = Path(__file__).parents[1]
NOT_THE_USERS = (str(Path(torch.__file__).parent) + os.sep, str(HERE) + os.sep)
USERS_ALL_THE_SAME = str(HERE / "course" / "clinic") + os.sep  # scripts of users, kept among our files

# Fine in, fine out: these neither make values larger nor invent NaN, so without a format they need no look.
NEVER_WORSE = frozenset(
    "relu relu_ tanh hardtanh max_pool1d max_pool2d max_pool3d adaptive_max_pool2d cat stack clone contiguous".split()
)
# What is bad may be left behind here, and rightly so. Any other operation that makes something good of it hides a
# value that is lost: tanh(Inf) = 1, 1 / Inf = 0.
DISCARDS = frozenset(
    "where min minimum fmin amin max maximum fmax amax clamp clamp_ clip clip_ clamp_min clamp_max masked_fill "
    "masked_fill_ relu6 hardtanh_ nan_to_num nan_to_num_ getitem setitem index_select gather take take_along_dim "
    "masked_select index index_put index_put_ topk sort reshape flatten repeat roll flip split chunk embedding "
    "nll_loss copy_ cat stack clone contiguous max_pool1d max_pool2d max_pool3d adaptive_max_pool2d".split()
)
# These take the shape and the dtype of a tensor, or write over it, and do not ask what is in it.
DISCARDS |= frozenset(
    "type_as expand_as view_as reshape_as zeros_like ones_like full_like rand_like randn_like new_zeros new_ones "
    "new_full new_tensor zero_ fill_ normal_ uniform_ bernoulli_ exponential_".split()
)
# Of -Inf these make what it stands for: exp(-Inf) = 0.
TAKES_MINUS_INF = frozenset(
    "exp exp2 sigmoid softmax softmin logsumexp logaddexp scaled_dot_product_attention "
    "multi_head_attention_forward".split()
)
# Their gradients are the incoming ones, or 0.
SAME_VALUES = tuple(
    "TBackward ViewBackward TransposeBackward PermuteBackward UnsqueezeBackward SqueezeBackward AliasBackward "
    "ReshapeAliasBackward UnsafeViewBackward CloneBackward CatBackward ReluBackward".split()
)

# These ask for a tensor's shape and kind, and compute nothing.
QUESTIONS = frozenset(
    "__get__ __set__ detach detach_ backward dim ndimension size stride numel nelement element_size storage_offset "
    "get_device data_ptr is_contiguous is_floating_point is_complex is_same_size is_set_to untyped_storage".split()
)

WHOLE = (torch.int64, torch.int32, torch.bool)  # in these is no Inf and no NaN

OUTSIDE = "(outside the model)"

Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Operation:
    """What there is to know of a torch function before it is called; a trace asks once for each."""

    name: str  # its own; empty for what computes nothing, such as `x.T`, `x.grad` and `x.dim()`
    readable: str  # `__matmul__` and `__rmatmul__` are matmul
    phase: str  # of the look at it
    in_place: bool  # whatever its arguments are

    def where(self, args: Any) -> Where:
        """What is done, still without where: a cast with its format."""
        if not self.readable:
            return Where("", f"cast to {args[1] or 'its own format'}", "", is_cast=True)
        return Where("", self.readable, "")


def operation(func: Callable[..., Any]) -> Operation:
    """What a function is called and does."""
    name: str = getattr(func, "__name__", "")
    if name in QUESTIONS:
        name = ""
    phase = {"grad": "gradients", "__setitem__": "write"}.get(name, "forward")
    readable = name
    if name.startswith("__"):
        readable = name.strip("_")
        if readable in ("rdiv", "rtruediv", "rsub", "rpow", "rmatmul", "radd", "rmul"):
            readable = readable[1:]
    if func in (cast, fake_cast):
        readable = ""
    return Operation(name, readable, phase, phase == "write" or is_in_place(name, {}))


@lru_cache(maxsize=4096)
def is_the_users(path: str) -> bool:
    """Is it neither torch's nor mpkit's?"""
    return not path.startswith(NOT_THE_USERS) or path.startswith(USERS_ALL_THE_SAME)


def locate() -> Place:
    """The line of the user's code that is at work: the innermost that is neither torch's, nor mpkit's, nor a mode's."""
    frame = sys._getframe(1)
    while frame.f_back is not None and (
        not is_the_users(frame.f_code.co_filename) or frame.f_code.co_name == "__torch_function__"
    ):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


@lru_cache(maxsize=4096)
def readable_line(place: Place) -> str:
    """ "file name:line". A notebook's cells live in files with meaningless names, so they are called "cell"."""
    name = os.path.basename(place[0])
    if "ipykernel" in place[0] or name.startswith("<"):
        name = "cell"
    return f"{name}:{place[1]}"


def role_of(node: Any) -> str:
    """What a node of the graph does: "end" at a parameter, "hands on" a gradient, or "makes" new ones."""
    role = _role(node.name())
    if role == "converts":
        return "hands on" if _widens(node) else "makes"
    return role


@lru_cache(maxsize=4096)
def _role(name: str) -> str:
    if name.endswith("AccumulateGrad"):
        return "end"
    if name.startswith("ToCopy"):
        return "converts"
    return "hands on" if name.startswith(SAME_VALUES) else "makes"


def _widens(node: Any) -> bool:
    """Does a conversion give its gradient a dtype that holds every value of the one that it has?

    So autocast's weights get theirs: the same values that a layer's backward pass has just made.
    """
    ((way, place),) = node.next_functions
    if way is None:
        return True
    given, wanted = node._input_metadata[0].dtype, way._input_metadata[place].dtype
    return given is wanted or given.itemsize < wanted.itemsize  # FP16 and BF16 have one size, and fit into FP32 alone


CONVERSIONS = frozenset({"to", "type", "half", "float", "double", "bfloat16"})


def where_of(node: Any, where: Where, module: str) -> Where:
    """Where a node of the graph belongs, if the last operation that was seen is `where`, in `module`.

    The rounding of a gradient, by emulation or by a real conversion, is an operation of its own. So is a user's
    autograd.Function, which no mode is asked about; its line is the one of its backward(). Ours stand for others.
    """
    name = node.name()
    if name.startswith(("FakeCast", "TransformedCast")):
        return Where(where.module, f"cast to {node.settings[0] or 'its own format'}", where.line)
    if name.startswith("_LowMatrix"):  # of an operation that mpkit.policy runs low forward, and differentiates itself
        return Where(where.module, node.func.__name__.strip("_"), where.line)
    if name.startswith("ToCopy") and not where.operation.startswith("cast") and where.operation not in CONVERSIONS:
        return Where(where.module, f"cast in {where.operation}", where.line)
    return (_function(node, "backward", where, module) or where) if hasattr(node, "_forward_cls") else where


def forward_of(node: Any, where: Where, module: str) -> Where | None:
    """Where the forward pass of a user's autograd.Function is; None: the node is none."""
    return _function(node, "forward", where, module) if hasattr(node, "_forward_cls") else None


def _function(node: Any, method: str, where: Where, module: str) -> Where | None:
    users: Any = node._forward_cls
    if users.__module__.startswith("mpkit."):  # ours stands for the operation that asked for it
        return None
    code: Any = getattr(getattr(users, method), "__code__", None)
    if code is None or not is_the_users(code.co_filename):  # torch has such functions, too
        return Where(module, users.__name__, where.line)
    return Where(module, users.__name__, readable_line((code.co_filename, code.co_firstlineno)))
