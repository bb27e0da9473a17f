"""Lesson 09: formats of 8 bits and fewer, their scales, and integers. What its notebook imports."""

from mpkit.course.exercises import check, predict, quiz, score_card, verdict
from mpkit.course.lesson_09.delayed_race import DelayedRacePanel
from mpkit.course.lesson_09.granularity import GranularityPanel
from mpkit.course.lesson_09.recipes import Classifier, deployed, held_out, integers_on_fp16, one_scale, with_fp8
from mpkit.course.nets.digits import digits
from mpkit.course.panels.live_comparison import watch
from mpkit.course.robustness import robustness_table
from mpkit.course.runs.equivalence import equivalence
from mpkit.course.runs.experiments import Variant, train_seeds
