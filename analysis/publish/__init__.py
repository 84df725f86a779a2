"""A grid as others can check, cite and import it."""
