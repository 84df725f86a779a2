"""Networks, lengths and schedules that a launch refuses or notes. Specs allow them: stored results have them."""

import math
from collections.abc import Iterator

from jobs.architectures import NUM_CHANNELS
from jobs.specs.keys import MAX_ALPHA
from jobs.specs.runs import Manifest, Task
from jobs.specs.train import TrainSpec
from jobs.training.schedules import epsilon_at
from jobs.wording import counted

LEVELS = 255
LONGEST = 8.0
"""No published sigma or epsilon is larger. For pixels from 0 to 255, this length would be 0.03."""

_LENGTHS = {
    "train": ("sigma", "epsilon", "ddn_initial_norm"),
    "certify": ("sigma_cert", "radius_step"),
    "attack": ("sigma", "epsilon"),
}
_PUBLISHED = {64: 64 / 256, 127: 127 / 256, 255: 255 / 256, 512: 512 / 256}
"""The epsilons that the published code uses for the numbers in its folder names."""


def train_problems(spec: TrainSpec) -> Iterator[str]:
    """Problems with the network, the lengths and the warm-up of a training."""
    given = spec.info.image_shape[0]
    if given != (taken := NUM_CHANNELS.get(spec.architecture, given)):
        yield (
            f"train.architecture: {spec.architecture} needs images with {counted(taken, 'channel')}, but those of "
            f"{spec.dataset} have {given}; choose another network with model=NAME"
        )
    yield from _length_problems(spec, "train", spec)
    last = epsilon_at(spec, spec.epochs - 1)
    if spec.checkpoint_sha256 is None and last < spec.epsilon:
        more = "<=" if spec.warmup == "published" else "<"
        yield (
            f"train.warmup_epochs: {spec.warmup_epochs} with train.epochs={spec.epochs} ends at epsilon {last:g} and "
            f"never reaches {spec.epsilon:g}; set warmup_epochs {more} epochs"
        )


def task_problems(train: TrainSpec, task: Task) -> Iterator[str]:
    """Problems with the lengths and the error probability of a certification or an attack."""
    yield from _length_problems(train, task.stage, task)
    if task.alpha > MAX_ALPHA:
        yield (
            f"{task.stage}.alpha: {task.alpha:g} is the probability that a result is wrong; it must be at most "
            f"{MAX_ALPHA:g}, and is usually 0.001"
        )


def notes(manifest: Manifest) -> Iterator[str]:
    """Notes on a grid that can be launched but may not be what the user meant."""
    for spec in manifest.models.values():
        size = spec.info.num_images["train"]
        if spec.checkpoint_sha256 is None and not spec.info.any_size and spec.batch_size > size:
            yield (
                f"train.batch_size={spec.batch_size} is more than the {size} training images of {spec.dataset}: "
                "each epoch is one step"
            )
        for published, value in _PUBLISHED.items():
            if spec.epsilon not in (value, 1.0, 2.0) and math.isclose(spec.epsilon, published / LEVELS, abs_tol=5e-4):
                yield (
                    f"train.epsilon={spec.epsilon:g} is {published}/255; the published models called eps_{published} "
                    f"have {published}/256 = {value:g}"
                )
    certified = {run.certify.precision for run in manifest.of("certify")}
    attacked = {run.task.precision for run in manifest.of("attack")}
    if attacked and certified != attacked:
        yield (
            f"attacks and their PREDICT run in {', '.join(sorted(attacked))}, certification in "
            f"{', '.join(sorted(certified))}: these are different base classifiers, and each result holds for its own"
        )


def _length_problems(train: TrainSpec, group: str, spec: TrainSpec | Task) -> Iterator[str]:
    diameter = math.sqrt(math.prod(train.info.image_shape))
    for name in _LENGTHS[group]:
        value = getattr(spec, name)
        is_told = spec is not train and value == train.sigma  # which sigma_cert is by default
        if not isinstance(value, float) or value <= min(LONGEST, diameter) or is_told:
            continue
        published = _PUBLISHED.get(round(value)) if name == "epsilon" and value == round(value) else None
        other = f"; the published models called eps_{value:g} have {published:g}" if published else ""
        yield (
            f"{group}.{name}: {value:g} is too large: pixels are in [0, 1], so two images of {train.dataset} differ by "
            f"at most {diameter:.3g}; a length of {value:g} for pixels from 0 to 255 is {value / LEVELS:.4g}{other}"
        )
