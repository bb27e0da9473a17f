"""What settles the predictions of lesson 03, and what would give them away: see tests/project/test_predictions.py."""

SETTLED = {
    "03.lost": ("lesson03-28", r"(about|lost:?) 85 ?%"),
    "03.sgd": (
        "lesson03-30",
        r"accuracy within one point of FP32 for every seed: True|SGD (0\.1 )?lost (nothing|less than one point)",
    ),
    "03.slower": ("lesson03-32", r"more than 20 points worse|with 0\.01"),
}
