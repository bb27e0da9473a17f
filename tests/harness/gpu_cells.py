"""Lines as tools/kernelrecord.py writes them: of a lesson's first cell, and of a cell that trains on a GPU."""

START = {"source": 'import mpkit\nlesson = mpkit.start("04")', "steps": 0, "devices": [], "kernels": None}
CELL = {
    "source": "runs = watch(\n    train_each())", "steps": 400, "devices": ["cuda"], "kernels": 812,
    "trouble": "", "allocations": 90, "seconds": 6.5, "started": 100.0, "ended": 112.0, "recording": 2.0,
    "allocated": 2**28, "reserved": 2**29, "gpu": "NVIDIA H100", "torch": "2.11.0",
}  # fmt: skip
