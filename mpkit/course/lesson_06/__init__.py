"""Lesson 06: the whole recipe, racing. What its notebook imports."""

from mpkit.course.exercises import check as check
from mpkit.course.exercises import predict as predict
from mpkit.course.exercises import quiz as quiz
from mpkit.course.exercises import score_card as score_card
from mpkit.course.exercises import verdict as verdict
from mpkit.course.lesson_06.formats_seen import dtypes_seen as dtypes_seen
from mpkit.course.lesson_06.precision_race import PrecisionRacePanel as PrecisionRacePanel
from mpkit.course.nets.digits import digits as digits
from mpkit.course.nets.models import MLP as MLP
from mpkit.course.panels.live_comparison import watch as watch
from mpkit.course.runs.equivalence import equivalence as equivalence
from mpkit.course.runs.experiments import Variant as Variant
from mpkit.course.runs.experiments import compare as compare
from mpkit.course.runs.experiments import train_each as train_each
