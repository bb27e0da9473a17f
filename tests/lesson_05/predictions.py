"""What settles each prediction of lesson 05, and what would give it away before."""

SETTLED = {
    "05.lost": ("lesson05-35", r"dynamic 2⁴⁰: 2\d"),
    "05.patience": ("lesson05-18", r"full after growth +1024 .* 32"),
    "05.formula": ("lesson05-30", r"unscaled norm: ends at 0\.25"),
    "05.setting": ("lesson05-47", r"both bad pairs cost over 10 %|\(0, 2000\): 0"),
}
