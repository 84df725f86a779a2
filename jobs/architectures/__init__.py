"""Registry of architectures: one module each, named as the architecture.

A module defines ``build(info) -> torch.nn.Module``: the network from normalised inputs_BCHW to
logits_BK for a dataset's image shape and number of classes. Normalisation is not its business
(``jobs.networks.classifier`` puts it in front). Names are read off the file names, so that checking one costs no
import of torch. A module whose name begins with an underscore is shared code, not an architecture.
"""

import functools
import pkgutil

NUM_CHANNELS = {"resnet50": 3}
"""Channels of the images that an architecture needs, unless it accepts any number."""


@functools.cache
def architecture_names() -> tuple[str, ...]:
    """The names of all architectures, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")))
