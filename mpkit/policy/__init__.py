"""Which format each stage of a training step uses, and how a model runs under that choice: emulated or native."""

from mpkit.policy.meter import Meter as Meter
from mpkit.policy.policy import PRESETS as PRESETS
from mpkit.policy.policy import Policy as Policy
from mpkit.policy.recipes import INT8_FORWARD as INT8_FORWARD
from mpkit.policy.recipes import LinearRecipe as LinearRecipe
