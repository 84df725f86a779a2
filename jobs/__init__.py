"""What runs on a node, and the files it leaves: specs, records, store, training, certification.

``specs``, ``records``, ``store`` and the other modules about files never import torch, so that the
login node and the analysis can use them; ``models``, ``checkpoint``, ``train`` and ``certify`` do.
"""
