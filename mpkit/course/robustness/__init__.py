"""How far a verdict reaches: the knob that a lesson chose, turned both ways."""

from mpkit.course.robustness.sweep import Sweep as Sweep
from mpkit.course.robustness.table import robustness_table as robustness_table
