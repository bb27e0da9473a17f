"""mpkit."""
