"""Lesson 09: below 16 bits. What its notebook imports."""

from mpkit.course.lesson_09.delayed_race import DelayedRacePanel
from mpkit.course.lesson_09.granularity import GranularityPanel
