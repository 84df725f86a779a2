"""Runs units on this machine."""
