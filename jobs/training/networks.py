"""The network of a training as its method asks it: one replica that learns, one folded copy that is attacked.

Shapes: B images, M noise draws, C H W image, R = M * B rows, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jobs.networks.classifier import Classifier
from jobs.networks.compilation import compiled
from jobs.networks.folding import FoldedClassifier
from jobs.specs.units import Compile
from jobs.training.method import Batch


class StepNetworks:
    """``Networks`` of one training, step after step.

    Attributes:
        attacked: The classifier as attacks see it: statistics frozen and folded into convolutions,
            parameters without gradients. Brought up to date by the first call of ``frozen`` in a step.
    """

    noisy_MBK: Tensor | None  # logits of the step's last call of ``noisy_logits``, without gradients; None before one

    def __init__(
        self, classifier: Classifier, replica: nn.Module, dtype: torch.dtype | None, compile: Compile = False
    ) -> None:
        """For a classifier and its replica (``Group.replicated``), the network's arithmetic in ``dtype`` if given."""
        classifier.train().to(memory_format=torch.channels_last)
        # Weights in bfloat16 at once: autocast would convert them from float32 in each pass of the attack.
        self.attacked = FoldedClassifier(classifier, dtype)
        self._fast = compiled(self.attacked, compile)
        # In the default mode: CUDA graphs, those of other modes, would overwrite logits that a step still needs.
        self._replica, self._dtype = compiled(replica, bool(compile)), dtype
        self.begin_step()

    def begin_step(self) -> None:
        """The weights have changed."""
        self._is_current, self.noisy_MBK = False, None

    def noisy_logits(self, batch: Batch) -> Tensor:
        logits_RK = self.logits((batch.inputs_BCHW + batch.noise_MBCHW).flatten(0, 1))
        logits_MBK = logits_RK.reshape(*batch.noise_MBCHW.shape[:2], -1)
        self.noisy_MBK = logits_MBK.detach()
        return logits_MBK

    def logits(self, inputs_BCHW: Tensor) -> Tensor:
        with torch.autocast(inputs_BCHW.device.type, self._dtype or torch.bfloat16, enabled=self._dtype is not None):
            logits_BK: Tensor = self._replica(inputs_BCHW.contiguous(memory_format=torch.channels_last))
        return logits_BK.to(inputs_BCHW.dtype)  # losses are in float32

    def frozen(self, inputs_BCHW: Tensor) -> Tensor:
        if not self._is_current:
            self.attacked.refresh()
            self._is_current = True
        logits_BK: Tensor = self._fast(inputs_BCHW)
        return logits_BK
