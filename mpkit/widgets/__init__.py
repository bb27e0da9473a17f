"""Panels of the lessons: one file a panel, core ipywidgets only, no logic in callbacks."""
