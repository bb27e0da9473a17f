"""Lesson 03: why training needs FP32 weights. What its notebook imports."""

from mpkit.course.exercises import check as check
from mpkit.course.exercises import predict as predict
from mpkit.course.exercises import quiz as quiz
from mpkit.course.exercises import score_card as score_card
from mpkit.course.lesson_03.number_line import NumberLinePanel as NumberLinePanel
from mpkit.course.nets.digits import digits as digits
from mpkit.course.nets.models import MLP as MLP
from mpkit.course.panels.live_comparison import watch as watch
from mpkit.course.panels.progress import with_progress as with_progress
from mpkit.course.runs.experiments import Variant as Variant
from mpkit.course.runs.experiments import as_good_as as as_good_as
from mpkit.course.runs.experiments import train_each as train_each
