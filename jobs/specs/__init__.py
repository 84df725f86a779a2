"""What is to be done: specs, their keys, runs and units. Knows no torch and no disk."""
