"""Formats of 8 bits and fewer with the scales that they need: by tensor, row, column or block, now or from history."""

from mpkit.scaled.delayed import DelayedAmax as DelayedAmax
from mpkit.scaled.integers import INT2 as INT2
from mpkit.scaled.integers import INT4 as INT4
from mpkit.scaled.integers import INT8 as INT8
from mpkit.scaled.integers import IntFormat as IntFormat
from mpkit.scaled.presets import FP8_BLOCK as FP8_BLOCK
from mpkit.scaled.presets import FP8_ROW as FP8_ROW
from mpkit.scaled.presets import FP8_TENSOR as FP8_TENSOR
from mpkit.scaled.presets import INT8_ROW as INT8_ROW
from mpkit.scaled.presets import MXFP4 as MXFP4
from mpkit.scaled.presets import MXFP6 as MXFP6
from mpkit.scaled.presets import MXFP8 as MXFP8
from mpkit.scaled.presets import NVFP4 as NVFP4
from mpkit.scaled.presets import SCALED_FORMATS as SCALED_FORMATS
from mpkit.scaled.quantize import Scaled as Scaled
from mpkit.scaled.quantize import quantize as quantize
from mpkit.scaled.quantize import scaled_cast as scaled_cast
from mpkit.scaled.report import ScaledReport as ScaledReport
from mpkit.scaled.report import report as report
from mpkit.scaled.scaled_format import ScaledFormat as ScaledFormat
