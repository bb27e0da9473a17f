"""Lesson 01: which numbers a format has. What its notebook imports."""

from mpkit.course.exercises import check as check
from mpkit.course.exercises import predict as predict
from mpkit.course.exercises import quiz as quiz
from mpkit.course.exercises import score_card as score_card
from mpkit.course.lesson_01.bit_explorer import BitExplorer as BitExplorer
from mpkit.course.lesson_01.range_chart_picture import range_chart as range_chart
from mpkit.course.lesson_01.ruler_picture import ruler as ruler
from mpkit.course.nets.digits import digits as digits
from mpkit.course.nets.models import Autoencoder as Autoencoder
from mpkit.course.runs.snapshots import record_gradients as record_gradients
