"""Answers to the exercise of lesson 00: the smallest k at which 1 + 2^-k is 1 in FP16."""

from __future__ import annotations

RIGHT = [
    ("00.1", "answer = 11.0"),
    ("00.1", "import numpy\nanswer = numpy.int64(11)"),
    ("00.1", "answer = torch.tensor(11)"),
]
WRONG = [
    ("00.1", "answer = 10", "still lies on FP16's last box"),
    ("00.1", "answer = 8", "BF16 loses it"),
    ("00.1", "answer = 3", "still fits"),
    ("00.1", "answer = 20", "lost before"),
    ("00.1", "answer = 1.001", "whole number"),
]
ALSO_WRONG = [
    ("00.1", "answer = 9", "still fits"),
    ("00.1", "import numpy\nanswer = numpy.uint8(10)", "still lies on FP16's last box"),
    ("00.1", "answer = float('nan')", "whole number"),
    ("00.1", "answer = 'k'", "whole number"),
    ("00.1", "answer = True", "whole number"),
    ("00.1", "answer = torch.tensor([11, 11])", "whole number"),
    ("00.1", "answer = '11'", "'11' in quotes is a text. Write it without them: 11"),
    ("00.1", "answer = 'eleven'", "whole number"),
]
STUBS = {"00.1": ("not yet", "still empty")}
SECRETS = {"00.1": r"11"}
ECHO = r"'11' in quotes is a text\. Write it without them: 11"
