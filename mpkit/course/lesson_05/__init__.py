"""Lesson 05: how the scale finds itself. What its notebook imports."""

from mpkit.course.exercises import check, predict, quiz, score_card, verdict
from mpkit.course.lesson_05.scaler_race import ScalerRacePanel
from mpkit.course.lesson_05.settings_bars_picture import settings_bars
from mpkit.course.lesson_05.settings_sweep import SettingsSweepPanel
from mpkit.course.lesson_05.settings_sweep_picture import does_well
from mpkit.course.nets.digits import digits
from mpkit.course.nets.models import MLP, Autoencoder, WideAutoencoder
from mpkit.course.panels.live_comparison import watch
from mpkit.course.pictures.still import StillPicture
from mpkit.course.pictures.style import power
from mpkit.course.robustness import robustness_table
from mpkit.course.runs.equivalence import equivalence
from mpkit.course.runs.experiments import Variant, as_good_as, compare, train_each
