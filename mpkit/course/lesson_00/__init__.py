"""Lesson 00: what the machine can do, and the first picture. What its notebook imports."""

from mpkit.course.exercises import check, course_map, predict, quiz, reset, score_card, verdict
from mpkit.course.lesson_00.doctor import doctor_panel
from mpkit.course.lesson_00.first_look_panel import first_look
from mpkit.course.lesson_00.without_gpu import EIGHT_BITS, WAYS, trained_without_gpu
from mpkit.course.robustness import robustness_table
from mpkit.course.runs.equivalence import equivalence
