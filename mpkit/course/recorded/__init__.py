"""Figures that were measured on a named machine, and their readers."""
