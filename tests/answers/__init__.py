"""What learners answer: for each lesson, right answers, typical wrong ones, and the words that each must hear.

A module `lesson_NN` has
    RIGHT        (exercise, code): answers that pass, besides the notebook's own solution
    WRONG        (exercise, code, words): at least three misconceptions an exercise, each with a message of its own
    ALSO_WRONG   (exercise, code, words): the same misconceptions in another form
    STUBS        exercise -> (status, words): what the untouched stub hears
    SECRETS      exercise -> regex of what no message may say: the heart of the solution
    ECHO         regex of what a message repeats from the learner's own answer; it is no secret and no message
"""
