"""Scripts that run in several processes at once, started by `mpkit.course.lesson_11.launch`; one idea in each."""
