"""What is wrong with a training step? `diagnose` reruns it with one thing changed; `guard` stays on for a training."""

from mpkit.diagnosis.checkpoint import diagnose_checkpoint as diagnose_checkpoint
from mpkit.diagnosis.diagnose import diagnose as diagnose
from mpkit.diagnosis.diagnosis import KINDS as KINDS
from mpkit.diagnosis.diagnosis import Diagnosis as Diagnosis
from mpkit.diagnosis.guard import Guard as Guard
from mpkit.diagnosis.guard import GuardEvent as GuardEvent
from mpkit.diagnosis.guard import guard as guard
