"""Code of a user's own: found, copied, imported, and checked before it is used. Only ``preflight`` and its checks import torch."""
