"""The tests of the panel: what their buttons say, what they cost, and what they ask."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Test:
    """A test: what its button says, what it costs, and what it asks."""

    name: str
    cost: int
    asks: str


TESTS = {
    "again": Test("run it again", 1, "the same step from the same state, and one more after it"),
    "fp32": Test("in FP32", 2, "the same step with every number in FP32, and one more after it"),
    "scale": Test("smaller scale", 1, "the same step with a loss scale that is 256 times smaller, and without one"),
    "data": Test("look at the data", 1, "what is in the batch, or in the checkpoint"),
    "tally": Test("tally the gradients", 1, "how many are Inf, NaN or 0 when the optimizer gets them"),
    "trace": Test("trace", 4, "where the first Inf or NaN is made, what casts lose, which calls are made"),
}
