"""Figures: how they look, how they are drawn fast, and the ones that several lessons share."""
