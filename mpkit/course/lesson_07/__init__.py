"""Lesson 07: how much faster and smaller, and why not always. What its notebook imports."""

from mpkit.course.exercises import check, predict, quiz, score_card, verdict
from mpkit.course.lesson_07.loss_curves import loss_curves
from mpkit.course.lesson_07.memory import ledger, owned, peak_bytes, saved_bytes
from mpkit.course.lesson_07.memory_ledger import MemoryLedgerPanel
from mpkit.course.lesson_07.speed_lab import SpeedLabPanel
from mpkit.course.nets.resnet import ResNet, resnet50
from mpkit.course.nets.transformer import Transformer
from mpkit.course.recorded.speed import SpeedRecord, amdahl, intensity
from mpkit.course.runs.equivalence import equivalence
from mpkit.course.runs.resnet_rows import DEFAULTS, resnet_row
from mpkit.course.runs.timing import repeated

HOST = "cpu"  # where the mechanism runs, whatever else this machine has
