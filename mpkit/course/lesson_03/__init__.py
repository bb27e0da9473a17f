"""Lesson 03: why training needs FP32 weights. What its notebook imports."""

from mpkit.course.exercises import check, predict, quiz, score_card
from mpkit.course.lesson_03.number_line import NumberLinePanel
from mpkit.course.lesson_03.way_picture import way_picture
from mpkit.course.nets.digits import digits
from mpkit.course.nets.models import MLP
from mpkit.course.panels.live_comparison import watch
from mpkit.course.panels.progress import with_progress
from mpkit.course.robustness import robustness_table
from mpkit.course.runs.experiments import Variant, train_each
