"""Lesson 00: what the machine can do, and the first picture. What its notebook imports."""

from mpkit.course.exercises import check as check
from mpkit.course.exercises import course_map as course_map
from mpkit.course.exercises import predict as predict
from mpkit.course.exercises import quiz as quiz
from mpkit.course.exercises import reset as reset
from mpkit.course.exercises import score_card as score_card
from mpkit.course.lesson_00.doctor import doctor_panel as doctor_panel
from mpkit.course.lesson_00.first_look_panel import first_look as first_look
