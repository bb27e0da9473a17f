"""Lesson 00's one experiment with its learning rate turned both ways."""

from mpkit.course.lesson_00.without_gpu import RATE, WAYS, trained_without_gpu
from mpkit.course.robustness import Sweep

SEEDS = range(10, 15)  # not those that the lesson shows
SWEEPS = (
    Sweep(
        key="00.cpu",
        question="Does a classifier of digits learn in 16 bits on a CPU as it does in FP32?",
        knob="learning rate",
        chosen=RATE,
        values=(0.03, 0.1, 0.3),
        measure=lambda rate: {way: trained_without_gpu(way, SEEDS, rate) for way in WAYS},
        reference="FP32",
        margin=1.0,
        unit="points of accuracy",
        better="high",
        expected={way: "worse" if way.startswith("E4M3") else "equivalent" for way in WAYS if way != "FP32"},
    ),
)
