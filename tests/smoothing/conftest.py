"""Settings for every test of the package."""

import torch

# Tests share small machines; models here are too small to gain from a second thread.
torch.set_num_threads(1)
