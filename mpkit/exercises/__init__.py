"""What a lesson asks of its reader: predictions, checked exercises, a quiz, and the score card."""

from mpkit.exercises.check import Feedback as Feedback
from mpkit.exercises.check import check as check
from mpkit.exercises.predict import predict as predict
from mpkit.exercises.quiz import quiz as quiz
from mpkit.exercises.score import course_map as course_map
from mpkit.exercises.score import score_card as score_card
from mpkit.exercises.verdict import verdict as verdict

__all__ = ["Feedback", "check", "course_map", "predict", "quiz", "score_card", "verdict"]
