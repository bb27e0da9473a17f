"""Where the predictions of lesson 08 are settled, and what would give each answer away before."""

SETTLED = {
    "08.small": (
        "lesson08-08",
        r"(?i)to more than 1:|weights (?:of attention )?add up to (?:more than 1|[12]\.\d)|2\.46",
    ),
    "08.sum": ("lesson08-43", r"BF16 +0\.\d\d +0\.\d\d +2\.\d\d|sums? (?:is|are) off by 2"),
    "08.clip": ("lesson08-38", r"SGD: clipping first costs|(?i:adam (?:hides|forgives))"),
}
