"""Code of a user: found, copied, imported, and checked before it is used. Only ``preflight`` imports torch."""
