"""The loop: a record a step, stopped and resumed at will, captured in a CUDA graph where that pays."""

from mpkit.training.batches import Batches as Batches
from mpkit.training.batches import StepData as StepData
from mpkit.training.capture import CapturedStep as CapturedStep
from mpkit.training.loop import fit as fit
from mpkit.training.record import StepRecord as StepRecord
from mpkit.training.run import Run as Run
from mpkit.training.step import TrainStep as TrainStep
