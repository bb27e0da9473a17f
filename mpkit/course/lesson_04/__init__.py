"""Lesson 04: where gradients live, and what the loss scale does to them. What its notebook imports."""

from mpkit.course.exercises import check as check
from mpkit.course.exercises import predict as predict
from mpkit.course.exercises import quiz as quiz
from mpkit.course.exercises import score_card as score_card
from mpkit.course.exercises import verdict as verdict
from mpkit.course.lesson_04.gradient_histogram import GradientHistogramPanel as GradientHistogramPanel
from mpkit.course.nets.digits import digits as digits
from mpkit.course.nets.models import MLP as MLP
from mpkit.course.nets.models import Autoencoder as Autoencoder
from mpkit.course.panels.live_comparison import watch as watch
from mpkit.course.panels.progress import with_progress as with_progress
from mpkit.course.pictures.style import power as power
from mpkit.course.runs.experiments import Variant as Variant
from mpkit.course.runs.experiments import as_good_as as as_good_as
from mpkit.course.runs.experiments import train_each as train_each
from mpkit.course.runs.snapshots import record_gradients as record_gradients
