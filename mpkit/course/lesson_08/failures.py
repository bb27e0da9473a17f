"""Exercise 08.3: six failures of transformers, four causes, and what each wrong cause hears."""

CAUSES = ("scores overflow", "gradients flushed", "clipped too early", "sum stalls")
CASES = {
    "A": ("scores overflow", {
        "gradients flushed": "Case A: a gradient that is flushed is zero. It makes no NaN.",
        "clipped too early": "Case A: the loss itself is NaN, before there is any gradient to clip.",
        "sum stalls": "Case A: a sum that stalls is wrong, but finite; and BF16 would be worse.",
    }),
    "B": ("clipped too early", {
        "scores overflow": "Case B: overflow would show as skipped steps or NaN.",
        "gradients flushed": "Case B: the scale is healthy. And why would it learn without clipping?",
        "sum stalls": "Case B: nobody added anything up here.",
    }),
    "C": ("gradients flushed", {
        "scores overflow": "Case C: the scores do not depend on the number of micro-batches.",
        "clipped too early": "Case C: with a scale of 1, unscaling changes nothing, so its order does not matter.",
        "sum stalls": "Case C: a sum that stalls is too short, but not zero. Here nothing at all is learned.",
    }),
    "D": ("sum stalls", {
        "scores overflow": "Case D: all is finite, and BF16 does not overflow there.",
        "gradients flushed": "Case D: BF16 has FP32's range.",
        "clipped too early": "Case D: the gradient has not been clipped yet.",
    }),
    "E": ("clipped too early", {
        "scores overflow": "Case E: the loss is a number, and the logged norm is finite.",
        "gradients flushed": "Case E: a norm of 40,000 says that the gradients are there.",
        "sum stalls": "Case E: one batch a step. Nothing is added up.",
    }),
    "F": ("sum stalls", {
        "scores overflow": "Case F: the scores are near 0.",
        "gradients flushed": "Case F happens in the forward pass.",
        "clipped too early": "Case F happens in the forward pass, where nobody clips.",
    }),
}  # fmt: skip
