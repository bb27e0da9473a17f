"""Lesson 07: how much faster and smaller, and why not always. What its notebook imports."""

from mpkit.course.exercises import check as check
from mpkit.course.exercises import predict as predict
from mpkit.course.exercises import quiz as quiz
from mpkit.course.exercises import score_card as score_card
from mpkit.course.exercises import verdict as verdict
from mpkit.course.lesson_07.memory import ledger as ledger
from mpkit.course.lesson_07.memory import saved_bytes as saved_bytes
from mpkit.course.lesson_07.memory_ledger import MemoryLedgerPanel as MemoryLedgerPanel
from mpkit.course.lesson_07.speed_lab import SpeedLabPanel as SpeedLabPanel
from mpkit.course.nets.digits import digits as digits
from mpkit.course.nets.resnet import ResNet as ResNet
from mpkit.course.nets.resnet import resnet50 as resnet50
from mpkit.course.recorded.speed import SpeedRecord as SpeedRecord
from mpkit.course.recorded.speed import amdahl as amdahl
from mpkit.course.recorded.speed import intensity as intensity
from mpkit.course.runs.experiments import Variant as Variant
from mpkit.course.runs.experiments import compare as compare
from mpkit.course.runs.timing import resnet_row as resnet_row
