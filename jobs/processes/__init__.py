"""Runs one unit in one process, and records how it ended."""
