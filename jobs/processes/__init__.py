"""How one unit runs in one process, and how its end is recorded."""
