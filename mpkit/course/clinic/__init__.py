"""The clinic: small training scripts after real threads, each in two versions, sick and cured."""

from importlib import import_module

from mpkit.course.clinic.follow import follow as follow
from mpkit.course.clinic.patient import Case as Case
from mpkit.course.clinic.patient import Patient as Patient
from mpkit.course.clinic.script import script as script

FILES = """
poisoned_batch_norm one_autocast ema_in_bf16 adam_in_bf16 colliding_positions zero_norm micro_batches_in_bf16
other_parameters no_scaler double_unscale clip_before_unscale zero_grad_after_skip scheduler_drift scaler_not_saved
scale_to_zero attention_scores own_softmax sum_before_mean masked_twice eps_in_norm adam_eps clipped_inf bf16_checkpoint
stale_scale left_over_memory where_sqrt ignored_labels probing_scaler discarded_log
""".split()
PATIENTS: dict[str, Patient] = {
    patient.name: patient for patient in (import_module(f"{__name__}.{file}").PATIENT for file in FILES)
}
