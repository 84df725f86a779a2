"""What is on disk: where it lies, what it looks like, what it says. Knows no torch."""
