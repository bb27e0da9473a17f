"""mpkit: mixed-precision training, small enough to read and exact enough to trust.

Read it in this order: bit_fields, formats, rounding, casting, trees, hook, unwatched, extremes, overflow, histogram;
then the folders scaled, scaling, policy, optim, training, tracing, diagnosis. None of them imports matplotlib or
ipywidgets. `course` holds the lessons.
"""

from typing import TYPE_CHECKING, Any

from mpkit import optim as optim
from mpkit import scaled as scaled
from mpkit import scaling as scaling
from mpkit.casting import cast as cast
from mpkit.casting import cast_floating as cast_floating
from mpkit.casting import fake_cast as fake_cast
from mpkit.diagnosis import Diagnosis as Diagnosis
from mpkit.diagnosis import diagnose as diagnose
from mpkit.diagnosis import diagnose_checkpoint as diagnose_checkpoint
from mpkit.diagnosis import guard as guard
from mpkit.formats import BF16 as BF16
from mpkit.formats import E2M1 as E2M1
from mpkit.formats import E2M3 as E2M3
from mpkit.formats import E3M2 as E3M2
from mpkit.formats import E4M3 as E4M3
from mpkit.formats import E5M2 as E5M2
from mpkit.formats import FP16 as FP16
from mpkit.formats import FP32 as FP32
from mpkit.formats import TF32 as TF32
from mpkit.formats import FloatFormat as FloatFormat
from mpkit.histogram import ExponentHistogram as ExponentHistogram
from mpkit.overflow import RangeReport as RangeReport
from mpkit.overflow import found_inf as found_inf
from mpkit.overflow import tally as tally
from mpkit.policy.meter import Meter as Meter
from mpkit.policy.policy import Policy as Policy
from mpkit.scaled import scaled_cast as scaled_cast
from mpkit.scaling import DynamicScale as DynamicScale
from mpkit.scaling import NoScaling as NoScaling
from mpkit.scaling import StaticScale as StaticScale
from mpkit.scaling.loss_scaler import LossScaler as LossScaler
from mpkit.scaling.step_result import StepResult as StepResult
from mpkit.tracing.watch import trace as trace
from mpkit.training import Batches as Batches
from mpkit.training import CapturedStep as CapturedStep
from mpkit.training import StepRecord as StepRecord
from mpkit.training import fit as fit

if TYPE_CHECKING:
    from mpkit.course.start import start as start

__version__ = "0.1.0"


def __dir__() -> list[str]:
    """The public names, `start` among them."""
    return sorted({*globals(), "start"} - {"TYPE_CHECKING", "Any"})


def __getattr__(name: str) -> Any:
    """`mpkit.start` belongs to the course, so it is loaded when a lesson asks for it."""
    if name == "start":
        from mpkit.course.start import start

        return start
    raise AttributeError(f"module 'mpkit' has no attribute {name!r}")
