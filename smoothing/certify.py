"""CERTIFY and PREDICT of Cohen et al. 2019."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from smoothing.certificate import Certificate, certificate_from_counts, prediction_from_counts
from smoothing.counts import BaseClassifier, class_counts
from smoothing.noise import NoiseStream, Stage


def certify(
    base_classifier: BaseClassifier,
    image_CHW: Tensor,
    *,
    sigma: float,
    n0: int,
    n: int,
    alpha: float,
    num_classes: int,
    seed: int,
    index: int,
    batch_size: int,
) -> Certificate:
    """Predict the smoothed classifier's class at an image and a radius around it.

    Args:
        base_classifier: Maps inputs_BCHW to logits_BK, in evaluation mode.
        image_CHW: Pixels in [0, 1], float32.
        sigma: Standard deviation of the noise, > 0.
        n0: Draws for choosing the class, >= 1.
        n: Separate draws for bounding its probability, >= 1.
        alpha: Probability that the certificate is wrong, in (0, 1).
        num_classes: K.
        seed: Seed of the run; the noise depends on (seed, index) alone.
        index: Dataset index of the image.
        batch_size: Rows handed to the device at a time; does not change the result on a CPU.

    Returns:
        The certificate, with all votes, so that any other bound can be had without sampling.

    Guarantee:
        With probability at least 1 - alpha over the noise: either it abstains, or the smoothed
        classifier is constant, and equal to the prediction, within the radius.

    Source:
        Cohen et al. 2019, CERTIFY.
    """

    def votes(stage: Stage, num_samples: int) -> npt.NDArray[np.int64]:
        return class_counts(
            base_classifier,
            image_CHW,
            sigma=sigma,
            num_samples=num_samples,
            num_classes=num_classes,
            stream=NoiseStream(seed=seed, index=index, stage=stage),
            batch_size=batch_size,
        )

    counts0, counts = votes("selection", n0), votes("estimation", n)
    return certificate_from_counts(counts0, counts, sigma=sigma, alpha=alpha)


def predict(
    base_classifier: BaseClassifier,
    image_CHW: Tensor,
    *,
    sigma: float,
    n: int,
    alpha: float,
    num_classes: int,
    seed: int,
    index: int,
    batch_size: int,
) -> int:
    """The smoothed classifier's class at an image, or ABSTAIN.

    Args: as for ``certify``; all n draws serve one test.

    Guarantee:
        The class returned differs from the smoothed classifier's with probability at most alpha.

    Source:
        Cohen et al. 2019, PREDICT.
    """
    counts = class_counts(
        base_classifier,
        image_CHW,
        sigma=sigma,
        num_samples=n,
        num_classes=num_classes,
        stream=NoiseStream(seed=seed, index=index, stage="prediction"),
        batch_size=batch_size,
    )
    return prediction_from_counts(counts, alpha=alpha)
