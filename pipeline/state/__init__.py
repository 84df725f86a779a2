"""The state of a grid: its files, the queue, submitted units, failures."""
