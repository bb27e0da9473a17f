"""What settles the predictions of lesson 01, and what would give them away: see tests/project/test_predictions.py."""

SETTLED = {
    "01.between": ("lesson01-13", r"1024 up to 2048: 1,024|equally many numbers"),
    "01.first": ("lesson01-08", r"2049|2048 ?\+ ?1"),
    "01.nan": ("lesson01-25", r"2,?046|63,?487"),
}
