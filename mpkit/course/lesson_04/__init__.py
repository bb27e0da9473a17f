"""Lesson 04: where gradients live, and what the loss scale does to them. What its notebook imports."""

from mpkit.course.exercises import check, predict, quiz, score_card, verdict
from mpkit.course.lesson_04.deep import Deep, clip_each_seed
from mpkit.course.lesson_04.gradient_histogram import GradientHistogramPanel
from mpkit.course.nets.digits import digits
from mpkit.course.nets.models import MLP, Autoencoder
from mpkit.course.panels.live_comparison import watch
from mpkit.course.panels.progress import with_progress
from mpkit.course.pictures.style import power
from mpkit.course.robustness import robustness_table
from mpkit.course.runs.experiments import Variant, as_good_as, train_each
from mpkit.course.runs.snapshots import record_gradients
