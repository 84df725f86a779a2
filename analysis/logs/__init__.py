"""Reads and checks the text logs of published code, and takes parameters from their paths."""
