"""The text logs of published code: read, checked, and named by their paths."""
