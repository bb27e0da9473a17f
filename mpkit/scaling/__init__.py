"""How the loss scale changes from step to step: small rules without a state, and the scaler that drives one."""

from mpkit.scaling.article import ArticleRule as ArticleRule
from mpkit.scaling.constant import NoScaling as NoScaling
from mpkit.scaling.constant import StaticScale as StaticScale
from mpkit.scaling.dynamic import DynamicScale as DynamicScale
from mpkit.scaling.gradient_rules import HistogramScale as HistogramScale
from mpkit.scaling.gradient_rules import LogMaxScale as LogMaxScale
from mpkit.scaling.gradient_stats import GradientStats as GradientStats
from mpkit.scaling.library import LibraryScale as LibraryScale
from mpkit.scaling.loss_scaler import LossScaler as LossScaler
from mpkit.scaling.presets import PRESETS as PRESETS
from mpkit.scaling.presets import preset as preset
from mpkit.scaling.rule import ScaleExhausted as ScaleExhausted
from mpkit.scaling.rule import ScaleRule as ScaleRule
from mpkit.scaling.rule import ScaleState as ScaleState
from mpkit.scaling.rule import as_float32 as as_float32
from mpkit.scaling.step_result import StepResult as StepResult
