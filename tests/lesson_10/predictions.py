"""Where the predictions of lesson 10 are settled, and what would give each answer away before."""

SETTLED = {
    "10.silent": ("lesson10-12", r"at some step: 9\b|(?i:two of three (are|is) silent|a third of (them|the sick))"),
    "10.anomaly": ("lesson10-16", r"MseLossBackward|gradient of the \*loss\*|(?i:anomaly detection names the loss)"),
    "10.fp32": ("lesson10-22", r"all finite in FP32: 10|(?i:FP32 cures (ten|10))"),
}
