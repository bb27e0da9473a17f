"""What settles the predictions of lesson 02, and what would give them away: see tests/project/test_predictions.py."""

SETTLED = {
    "02.stop": ("lesson02-18", r"204\.8|'sequential': 256\.0"),
    "02.refused": ("lesson02-28", r"max-pool +yes|[Nn]o operation is refused"),
    "02.sure": ("sure-claim", r"in FP16 steps: 0\.0|sure model's .{0,30}\b0\b"),
}
