"""Specs, their keys, runs and units. Uses neither torch nor the disk."""
