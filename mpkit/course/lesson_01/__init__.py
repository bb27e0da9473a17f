"""Lesson 01: which numbers a format has. What its notebook imports."""

from mpkit.course.exercises import check, predict, quiz, score_card
from mpkit.course.lesson_01.bit_explorer import BitExplorer
from mpkit.course.lesson_01.range_chart_picture import range_chart
from mpkit.course.lesson_01.ruler_picture import ruler
from mpkit.course.nets.digits import digits
from mpkit.course.nets.models import MLP
from mpkit.course.runs.snapshots import record_gradients
