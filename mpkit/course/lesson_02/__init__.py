"""Lesson 02: what a cast loses, and where sums stall. What its notebook imports."""

from mpkit.course.arithmetic.accumulate import HOWS as HOWS
from mpkit.course.arithmetic.accumulate import dot as dot
from mpkit.course.arithmetic.accumulate import total as total
from mpkit.course.exercises import check as check
from mpkit.course.exercises import predict as predict
from mpkit.course.exercises import quiz as quiz
from mpkit.course.exercises import score_card as score_card
from mpkit.course.exercises import verdict as verdict
from mpkit.course.lesson_02.cast_explorer import CastExplorerPanel as CastExplorerPanel
from mpkit.course.lesson_02.dot_error_picture import dot_error_picture as dot_error_picture
from mpkit.course.lesson_02.kernel_survey import by_hand as by_hand
from mpkit.course.lesson_02.kernel_survey import survey as survey
from mpkit.course.lesson_02.stalling_sum import StallingSumPanel as StallingSumPanel
from mpkit.course.nets.digits import digits as digits
from mpkit.course.nets.models import Autoencoder as Autoencoder
from mpkit.course.runs.snapshots import record_gradients as record_gradients
