"""What runs in several processes at once, started by `mpkit.course.lesson_11.launch`; one idea in each script.

It is no part of the lesson's slice: that would load its panels in every process.
"""

GLOBAL_BATCH = 48  # images that all ranks of `checkpoint` together see in a step
