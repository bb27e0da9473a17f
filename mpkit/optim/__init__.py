"""16-bit weights that still train: wrappers around any torch optimizer."""

from mpkit.optim.wrappers import Kahan as Kahan
from mpkit.optim.wrappers import MasterWeights as MasterWeights
from mpkit.optim.wrappers import Rounded as Rounded
