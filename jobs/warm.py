"""Everything a unit may import, imported: for a fork server, whose children then start at once."""

from __future__ import annotations

import sklearn.datasets  # noqa: F401  the digits load through it
import torch._dynamo  # noqa: F401  the first optimizer of a process imports it, which takes seconds

import jobs.aggregate
import jobs.attack
import jobs.certify
import jobs.train  # noqa: F401
