"""python -m analysis.paper: every table and figure of the paper, from published logs or a grid."""
