"""What a lesson asks of its reader: predictions, checked exercises, a quiz, and the score card."""

from mpkit.course.exercises.check import check as check
from mpkit.course.exercises.checker import Feedback as Feedback
from mpkit.course.exercises.predict import predict as predict
from mpkit.course.exercises.quiz import quiz as quiz
from mpkit.course.exercises.score import course_map as course_map
from mpkit.course.exercises.score import score_card as score_card
from mpkit.course.exercises.store import reset as reset
from mpkit.course.exercises.verdict import verdict as verdict
