"""`python -m mpkit doctor`: what this machine can do, and what is missing."""
