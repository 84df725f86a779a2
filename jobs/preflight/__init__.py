"""Checks plug-ins before a launch: what they are, and whether they can be certified and trained reproducibly."""
