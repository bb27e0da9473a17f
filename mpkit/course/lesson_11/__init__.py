"""Lesson 11: many ranks, and who decides to skip. What its notebook imports."""

from mpkit.course.exercises import check, predict, quiz, score_card
from mpkit.course.lesson_11.agreement import agreement
from mpkit.course.lesson_11.checkpoint import resume
from mpkit.course.lesson_11.drift import drift
from mpkit.course.lesson_11.launch import RankFailed, launch
from mpkit.course.lesson_11.on_paper import balance, costs, settled_scale, simulate_scale, some_rank
from mpkit.course.lesson_11.rank_simulator import RankSimulatorPanel
from mpkit.course.lesson_11.simulated_ranks import Setup, simulate
from mpkit.course.lesson_11.sums import sums
from mpkit.course.recorded.ranks import RanksRecord as RanksRecord
