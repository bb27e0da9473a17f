"""Pictures: data in, figure out. Nothing here computes what it shows."""
