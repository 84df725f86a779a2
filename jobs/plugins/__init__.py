"""Code of a user: found, copied, imported, described. Knows no torch."""
