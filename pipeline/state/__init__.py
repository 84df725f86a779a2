"""How a grid stands: its files, the queue, what was submitted, what failed."""
