"""Lesson 02: what a cast loses, and where sums stall. What its notebook imports."""

from mpkit.course.arithmetic.accumulate import HOWS, dot, total
from mpkit.course.exercises import check, predict, quiz, score_card, verdict
from mpkit.course.lesson_02.cast_explorer import CastExplorerPanel
from mpkit.course.lesson_02.dot_error_picture import dot_error_picture
from mpkit.course.lesson_02.dot_errors import dot_errors
from mpkit.course.lesson_02.kernel_survey import by_hand, hard_inputs, planted, survey
from mpkit.course.lesson_02.lost_losses import lost_losses
from mpkit.course.lesson_02.stalling_sum import StallingSumPanel
from mpkit.course.nets.digits import digits
from mpkit.course.nets.models import MLP
from mpkit.course.runs.snapshots import record_gradients
