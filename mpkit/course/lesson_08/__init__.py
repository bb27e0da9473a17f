"""Lesson 08: attention, and long sums. What its notebook imports."""

from mpkit.course.arithmetic.accumulate import total
from mpkit.course.exercises import check, predict, quiz, score_card, verdict
from mpkit.course.lesson_08.attention import AttentionPanel
from mpkit.course.lesson_08.progress import steps_to
from mpkit.course.lesson_08.trial import attention_trial
from mpkit.course.nets.attention import ATTENTION
from mpkit.course.nets.text import text
from mpkit.course.nets.transformer import Transformer
from mpkit.course.panels.live_comparison import watch
from mpkit.course.recorded.speed import SpeedRecord
from mpkit.course.recorded.transformer import TransformerRecord
from mpkit.course.robustness import robustness_table
from mpkit.course.runs.equivalence import equivalence
from mpkit.course.runs.experiments import Variant, train_seeds
