"""python -m analysis.report: one interactive HTML page."""
