"""What settles the predictions of lesson 04, and what would give them away: see tests/project/test_predictions.py."""

SETTLED = {
    "04.flushed": ("lesson04-09", r"layer 1 gets no gradient|first layers? .{0,30}(no gradient|not hear|nothing)"),
    "04.window": ("lesson04-23", r"131,?072|524,?288|trains like FP32 with"),
    "04.cliff": ("lesson04-24", r"400 of 400|One doubling more"),
    "04.tiny": ("lesson04-62", r"accuracy 94 ?%|costs FP32 some points"),
}
