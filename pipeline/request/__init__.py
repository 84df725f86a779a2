"""The request of a launch: its configuration, and the runs that its grid expands to."""
