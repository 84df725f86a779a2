"""What a launch is asked for: its configuration, and the grid it expands to."""
