"""Exercise 07.3: six steps that FP16 does not make faster, five causes, and what each wrong cause hears."""

CAUSES = ("misaligned", "launch-bound", "memory-bound", "waits for data", "stays in FP32")
CASES = {
    "A": ("misaligned", {
        "launch-bound": "Case A's last layer is huge. Starting it takes no time at all beside that.",
        "memory-bound": "Case A: thousands of rows and of columns: plenty of arithmetic for each byte.",
        "waits for data": "Case A loses its time inside one layer, not between the steps.",
        "stays in FP32": "Case A is a product of matrices, the first thing that autocast casts.",
    }),
    "B": ("launch-bound", {
        "misaligned": "Case B: all of its sizes are multiples of 64. And twice the work takes no longer?",
        "memory-bound": "Case B: twice the batch moves twice the bytes. A memory that is the limit would need longer.",
        "waits for data": "Case B: twice the data would take twice as long to read.",
        "stays in FP32": "Case B: in FP32, too, twice the work would take longer.",
    }),
    "C": ("memory-bound", {
        "misaligned": "Case C has no matrix products. How their rows lie in memory plays no part in it.",
        "launch-bound": "Case C did become almost twice as fast. A launch takes the same time in every format.",
        "waits for data": "Case C's time is spent in kernels, as the profiler shows.",
        "stays in FP32": "Case C did become almost twice as fast. What stays as it was does not.",
    }),
    "D": ("waits for data", {
        "misaligned": "Case D: all of the GPU is idle, and only between the steps.",
        "launch-bound": "Case D: it is the disk that is slow, not the start of kernels.",
        "memory-bound": "Case D: the GPU's memory is idle as well.",
        "stays in FP32": "Case D: an idle GPU computes in no format at all.",
    }),
    "E": ("memory-bound", {
        "misaligned": "Case E: 4,096 is a multiple of 8, and of 64 too.",
        "launch-bound": "Case E reads 32 MiB. That takes longer than a launch.",
        "waits for data": "Case E: nothing is read from a disk here.",
        "stays in FP32": "Case E is a product, and did become twice as fast. What is its intensity?",
    }),
    "F": ("stays in FP32", {
        "misaligned": "Case F: these are no products. How their rows lie plays no part in them.",
        "launch-bound": "Case F: the additions beside them start in the same way, and did become faster.",
        "memory-bound": "Case F: half the bytes would have taken half the time, as in the additions. Are they half?",
        "waits for data": "Case F's time is spent in kernels, as the profiler shows.",
    }),
}  # fmt: skip
