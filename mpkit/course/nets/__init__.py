"""What the lessons train, and the data that needs no network."""
