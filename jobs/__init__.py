"""What one job does, and the files it leaves.

``specs``, ``files`` and ``plugins`` never import torch, so that the login node and the analysis can use them.
"""
