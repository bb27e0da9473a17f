"""The course: everything that only the lessons need. The library does not import it."""
