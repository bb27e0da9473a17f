"""Where the predictions of lesson 07 are settled, and what would give each answer away before."""

SETTLED = {
    "07.speed": ("lesson07-13", r"fp16-mixed +53\.\d.* 5\.0\d|five times\** as fast|five times the time"),
    "07.article": ("lesson07-13", r"article +234\.\d.* 1\.15|A little faster|Amdahl"),
    "07.memory": ("lesson07-23", r"6 ?% \**more|124 GiB|keeps more than FP32"),
}
