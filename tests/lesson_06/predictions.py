"""What settles each prediction of lesson 06, and what would give it away before."""

SETTLED = {
    "06.backward": ("lesson06-12", r"gradient of a hidden output +FP32 +FP16 +FP16"),
    "06.parity": ("lesson06-25", r"0\.003 nats: FP16 mixed"),
    "06.coarse": ("lesson06-26", r"FP16 all +(True|False) +(True|False)|when its accuracy"),
}
