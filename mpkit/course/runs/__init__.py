"""Several trainings side by side, and what is measured of them."""
