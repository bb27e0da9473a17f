"""Where the predictions of lesson 09 are settled, and what would give each answer away before."""

SETTLED = {
    "09.share": ("lesson09-09", r"(?i:every row crosses the loud column)"),
    "09.floor": ("lesson09-17", r"MXFP8 floor +1\d\.\d %|(?i:one (?:block )?in six)"),
    "09.jump": ("lesson09-26", r"for 1 step\b|(?i:one step is clipped)|clipped on that one step"),
    "09.round": (
        "lesson09-49",
        r"torch\.round itself: no more than 20|(?i:nothing is learned, gradients are exactly 0)",
    ),
}
