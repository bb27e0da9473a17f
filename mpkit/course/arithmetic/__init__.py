"""Single numbers and sums in a format, exactly."""
