"""Lesson 11: many ranks, and who decides to skip. What its notebook imports."""

from mpkit.course.exercises import check, predict, quiz, score_card
from mpkit.course.lesson_11.rank_simulator import RankSimulatorPanel
