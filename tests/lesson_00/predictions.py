"""What settles the predictions of lesson 00, and what would give them away: see tests/project/test_predictions.py."""

SETTLED = {"00.sum": ("claim-sum", r"1\.97|1\.98")}
