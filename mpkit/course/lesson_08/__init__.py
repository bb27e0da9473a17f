"""Lesson 08: attention, and long sums. What its notebook imports."""

from mpkit.course.arithmetic.accumulate import total as total
from mpkit.course.exercises import check as check
from mpkit.course.exercises import predict as predict
from mpkit.course.exercises import quiz as quiz
from mpkit.course.exercises import score_card as score_card
from mpkit.course.exercises import verdict as verdict
from mpkit.course.lesson_08.attention import AttentionPanel as AttentionPanel
from mpkit.course.lesson_08.trial import attention_trial as attention_trial
from mpkit.course.nets.attention import ATTENTION as ATTENTION
from mpkit.course.nets.text import text as text
from mpkit.course.nets.transformer import Transformer as Transformer
from mpkit.course.panels.live_comparison import watch as watch
from mpkit.course.recorded.speed import SpeedRecord as SpeedRecord
from mpkit.course.recorded.transformer import TransformerRecord as TransformerRecord
from mpkit.course.runs.equivalence import equivalence as equivalence
from mpkit.course.runs.experiments import Variant as Variant
from mpkit.course.runs.experiments import train_seeds as train_seeds
