"""What the command prints of the patients. What is wrong with them is for the reader to find."""

import textwrap

from mpkit.course.clinic import PATIENTS
from mpkit.course.clinic.patient import Patient
from mpkit.course.clinic.script import script

STEP = {
    "pass": "One call of step() is a forward and a backward pass.",
    "iteration": "One call of step() is a whole iteration.",
    "checkpoint": "The model was loaded from a checkpoint.",
}


def listing() -> str:
    """All patients: name, complaint, and what one call of their step is."""
    return "\n\n".join(f"{patient.name}\n{_said(patient)}" for patient in PATIENTS.values())


def sheet(patient: Patient) -> str:
    """One patient: its complaint, and its script as the owner would show it."""
    return f"{patient.name}\n{_said(patient)}\n\n{script(patient)}".rstrip()


def _said(patient: Patient) -> str:
    words = f"{patient.complaint} {STEP[patient.form]}"
    return textwrap.fill(words, 100, initial_indent="  ", subsequent_indent="  ")
