"""The user's own code: how keys name it, and how it is found, copied and imported. Does not import torch.

Of a plug-in a key holds its name, its version and all of its options, with their defaults. Not a hash of
its source: a corrected comment would train a whole grid again. Whoever changes what it computes raises
its version.
"""

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from jobs.validation import STRICT

PluginKind = Literal["objective", "perturbation", "model", "data", "denoiser"]
"""The kinds of plug-ins; see ``jobs.training.method``, ``jobs.architectures`` and ``jobs.datasets``."""

LIBRARIES = ("timm", "torchvision")
"""``timm:NAME`` and ``torchvision:NAME`` are models of these libraries, not plug-ins."""

ENSEMBLE = "ensemble:mean"
"""The model that is the mean of finished runs."""

DATA_FILES = ("npz", "folder")
"""``npz:PATH`` and ``folder:PATH`` are data sets; in specs, NAME stands for the path."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Plugin:
    """One plug-in."""

    # ``module:attribute``, as it is imported: ``mylab.consistency:Consistency``
    name: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
    version: Annotated[int, Field(ge=1)] = 1  # its ``VERSION``
    options: dict[str, Any]  # all of its fields with their values

    def __hash__(self) -> int:
        return hash((self.name, self.version))

    @property
    def package(self) -> str:
        """The top-level package or module that it is in."""
        return self.name.partition(":")[0].partition(".")[0]

    @property
    def label(self) -> str:
        """Its name in keys and tables: its class or function, in lower case."""
        return self.name.rpartition(":")[2].lower()

    @property
    def is_own(self) -> bool:
        """Whether it is the user's own code, not a library's model or a file of images."""
        return self.name != ENSEMBLE and self.package not in (*LIBRARIES, *DATA_FILES)
