"""Files on disk: paths, formats, reading and writing. Does not import torch."""
