"""The settings of plain loops that differ from those of jobs."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def plain_settings() -> Iterator[None]:
    """Products in float32, by whatever kernel cuDNN likes best; jobs leave it the deterministic ones."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic = False, False, False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic = before
