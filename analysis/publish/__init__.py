"""Publishes a grid so that others can check, cite and import it."""
