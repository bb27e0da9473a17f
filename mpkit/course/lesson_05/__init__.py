"""Lesson 05: how the scale finds itself. What its notebook imports."""

from mpkit.course.exercises import check as check
from mpkit.course.exercises import predict as predict
from mpkit.course.exercises import quiz as quiz
from mpkit.course.exercises import score_card as score_card
from mpkit.course.exercises import verdict as verdict
from mpkit.course.lesson_05.scaler_race import ScalerRacePanel as ScalerRacePanel
from mpkit.course.lesson_05.settings_grid_picture import settings_grid as settings_grid
from mpkit.course.lesson_05.settings_sweep import SettingsSweepPanel as SettingsSweepPanel
from mpkit.course.lesson_05.settings_sweep_picture import does_well as does_well
from mpkit.course.nets.digits import digits as digits
from mpkit.course.nets.models import MLP as MLP
from mpkit.course.nets.models import Autoencoder as Autoencoder
from mpkit.course.nets.models import WideAutoencoder as WideAutoencoder
from mpkit.course.panels.live_comparison import watch as watch
from mpkit.course.pictures.still import StillPicture as StillPicture
from mpkit.course.pictures.style import power as power
from mpkit.course.runs.experiments import Variant as Variant
from mpkit.course.runs.experiments import as_good_as as as_good_as
from mpkit.course.runs.experiments import compare as compare
from mpkit.course.runs.experiments import train_each as train_each
