"""Lesson 10: something is NaN, or nothing is and all is wrong. What its notebook imports."""

from mpkit.course.exercises import check, predict, quiz, score_card
from mpkit.course.lesson_10.clinic_panel import ClinicPanel
from mpkit.course.lesson_10.examination import diagnosed, placed
from mpkit.course.lesson_10.look_alikes import COLUMNS, Reads, anomaly, first_bad_module, in_fp32_from_the_start, reruns
from mpkit.course.lesson_10.waiting_room import NUMBERS, admitted, logged, patient
