"""Lesson 06: the whole recipe, racing. What its notebook imports."""

from mpkit.course.exercises import check, predict, quiz, score_card, verdict
from mpkit.course.lesson_06.autocast_lists import AUTOCAST_LISTS, autocast_seen
from mpkit.course.lesson_06.formats_seen import dtypes_seen
from mpkit.course.lesson_06.precision_race import PrecisionRacePanel
from mpkit.course.nets.digits import digits
from mpkit.course.nets.models import MLP
from mpkit.course.panels.live_comparison import watch
from mpkit.course.robustness import robustness_table
from mpkit.course.runs.equivalence import equivalence
from mpkit.course.runs.experiments import Variant, compare, train_each
