"""The spec of a training: exactly the fields that change weights."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from jobs.architectures import architecture_names
from jobs.datasets import DatasetInfo, Source, dataset_info, dataset_names
from jobs.plugins import ENSEMBLE, LIBRARIES, Plugin
from jobs.specs.keys import AtLeastOne, Length, NotNegative, Positive, Seed, decimal, digest, plain
from jobs.validation import STRICT, Fitting, build, unknown_choice

TrainPrecision = Literal["float32", "bfloat16"]
InputLayer = Literal["normalize", "center", "none"]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainSpec(Fitting):
    """One base classifier. sigma and epsilon are l2 lengths in pixels of [0, 1]."""

    dataset: str  # a name in ``jobs.datasets``; or that of ``data``
    architecture: str  # a name in ``jobs.architectures``; or that of ``model``
    # gaussian is noise augmentation (Cohen et al. 2019), smoothadv adversarial training of the smoothed classifier
    # (Salman et al. 2019), vanilla adversarial training of the base classifier without noise, and vanilla_noise the
    # same with noise added to the adversarial examples (Appendix C.1).
    method: Literal["gaussian", "smoothadv", "vanilla", "vanilla_noise"]
    # How adversarial examples are found: pgd, ddn, or pgd along the gradient-free estimate of soft (stein) or hard
    # (stein_hard) outputs; none with gaussian
    attack: Literal["none", "pgd", "ddn", "stein", "stein_hard"] = "none"
    sigma: Length  # standard deviation of the training noise; 0 with vanilla, else > 0
    epsilon: Length = 0.0  # radius of the attack; 0 with gaussian, else > 0
    m_train: AtLeastOne = 1  # noise draws per image, for attack and training step alike; 1 with vanilla
    num_steps: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0  # steps T of the attack
    inverse_temperature: Positive = 1.0  # the factor beta of the logits in the attack's softmax; 1 is the paper
    # paper takes one optimizer step on all m_train * batch_size noisy images; sub_batches cuts the batch into m_train
    # parts with a step each, as the published code does
    multi_noise: Literal["paper", "sub_batches"] = "paper"
    # DDN's first length; "epsilon" is the published code's in training
    ddn_initial_norm: Positive | Literal["epsilon"] = 1.0
    warmup_epochs: Annotated[int, Field(ge=0)] = 0  # epsilon is full from this epoch on, and grows linearly before
    warmup: Literal["paper", "published"] = "paper"  # paper begins at 0, published at epsilon / warmup_epochs
    epochs: AtLeastOne  # passes over the training set
    batch_size: AtLeastOne  # images per optimizer step, over all processes
    learning_rate: Positive  # of the first epoch
    lr_step_epochs: AtLeastOne  # number of epochs after which the learning rate is multiplied by lr_gamma
    lr_gamma: Annotated[float, Field(gt=0, le=1)]  # in (0, 1]
    momentum: Annotated[float, Field(ge=0, lt=1)]  # of SGD, in [0, 1)
    weight_decay: NotNegative  # of SGD
    num_processes: AtLeastOne = 1  # processes (GPUs) that share each batch; batch normalisation sees a share
    # Arithmetic of the network, in the attack and in the step. Weights, statistics, perturbations, norms and losses are
    # always in float32.
    precision: TrainPrecision = "float32"
    seed: Seed  # of initial weights, order of images and noise
    objective: Plugin | None = None  # plug-in whose loss is minimised instead of the cross-entropy
    # Plug-in that perturbs batches, in place of an attack of ours. With epsilon it gets the radius of each epoch.
    perturbation: Plugin | None = None
    model: Plugin | None = None  # plug-in or library that builds the network; ``architecture`` is its name
    data: Plugin | None = None  # a data set of the user's own; ``dataset`` is its name
    # Plug-in that builds a network from images plus noise of sigma to images. It is frozen and placed before a
    # classifier whose weights are taken
    denoiser: Plugin | None = None
    denoiser_sha256: Sha256 | None = None  # hash of the file of its weights
    optimizer: Literal["sgd", "adamw"] = "sgd"  # sgd, or adamw with torch's betas
    # The learning rate falls in steps, or along half a cosine to 0 at the end
    schedule: Literal["step", "cosine"] = "step"
    # Largest l2 norm of the gradient of all weights together; a longer one is shortened
    clip_norm: Positive | None = None
    checkpoint_sha256: Sha256 | None = None  # hash of a file of weights
    # take: the weights are the classifier, without training; all other fields then describe how they were trained
    # elsewhere. train: training begins with them.
    init: Literal["take", "train"] = "take"
    # With a checkpoint: whether its first layer normalises with the dataset's means and deviations (normalize),
    # subtracts the means only (center), or is not there (none). Most files do not say which.
    input_layer: InputLayer = "normalize"

    @field_validator("objective", "perturbation", "model", "data", "denoiser", mode="before")
    @classmethod
    def _plugin(cls, value: object) -> object:
        return build(Plugin, value, where="plug-in") if isinstance(value, Mapping) else value

    def _problems(self) -> Iterator[str]:
        yield from self._model_problems()
        yield from self._attack_problems()
        yield from self._option_problems()

    def _model_problems(self) -> Iterator[str]:
        if self.data is None and self.dataset not in dataset_names():
            hint = "; write your own as npz:PATH, folder:PATH or module:function"
            yield unknown_choice("dataset", self.dataset, dataset_names()) + hint
        if self.data is not None and (self.data.label != self.dataset or self.dataset in dataset_names()):
            yield f"data: {self.data.name} cannot be named {self.dataset}: this package has a data set of that name"
        if self.model is not None and self.model.name != self.architecture:
            yield f"model: {self.model.name} differs from the architecture {self.architecture}"
        if self.model is None and self.architecture not in architecture_names():
            problem = unknown_choice("architecture", self.architecture, architecture_names())
            libraries = " or ".join(f"{name}:NAME" for name in LIBRARIES)
            yield f"{problem}; write a library's model as {libraries}, and your own as module:function"
        if self.method == "vanilla" and (self.sigma, self.m_train) != (0.0, 1):
            yield f"method=vanilla is without noise: sigma must be 0 and m_train 1 (got {self.sigma}, {self.m_train})"
        if self.method != "vanilla" and self.sigma == 0:
            yield f"method={self.method} trains with noise: sigma must be > 0"

    def _attack_problems(self) -> Iterator[str]:
        attack_fields = (self.attack, self.epsilon, self.m_train, self.num_steps, self.warmup_epochs)
        if self.perturbation is not None and (self.method, self.attack) != ("gaussian", "none"):
            yield (
                f"perturbation={self.perturbation.name} replaces the attack: write method: gaussian, without attack "
                f"(got {self.method}, {self.attack})"
            )
        elif self.method == "gaussian" and (self.objective or self.perturbation):
            if (self.attack, self.num_steps) != ("none", 0) or (self.epsilon > 0 and self.perturbation is None):
                yield "method=gaussian has no attack: leave out attack, epsilon and num_steps, or use another method"
        elif self.method == "gaussian":
            if attack_fields != ("none", 0.0, 1, 0, 0):
                yield (
                    "method=gaussian has no attack: leave out attack, epsilon, m_train, num_steps and "
                    f"warmup_epochs (got {', '.join(map(str, attack_fields))})"
                )
        elif self.attack == "none" or self.epsilon == 0 or self.num_steps == 0:
            yield (
                f"method={self.method} needs an attack, epsilon > 0 and num_steps >= 1 "
                f"(got attack={self.attack}, epsilon={self.epsilon}, num_steps={self.num_steps})"
            )
        if self.attack in ("stein", "stein_hard") and self.method != "smoothadv":
            yield f"attack={self.attack} estimates the smoothed classifier's gradient: method must be smoothadv"

    def _option_problems(self) -> Iterator[str]:
        """Options without effect are problems, since they would make two keys for one classifier."""
        idle = [
            ("inverse_temperature", 1.0, self.attack in ("none", "stein_hard"), f"with attack={self.attack}"),
            ("ddn_initial_norm", 1.0, self.attack != "ddn", f"with attack={self.attack}"),
            ("multi_noise", "paper", self.m_train == 1, "with m_train=1"),
            ("warmup", "paper", self.warmup_epochs == 0, "with warmup_epochs=0"),
            ("precision", "float32", self.is_taken, "with train.checkpoint=PATH"),
            ("input_layer", "normalize", self.checkpoint_sha256 is None, "without train.checkpoint=PATH"),
        ]
        for name, default, has_no_effect, setting in idle:
            if has_no_effect and (value := getattr(self, name)) != default:
                yield f"{name}={value} has no effect {setting}; leave it out"
        if self.checkpoint_sha256 is None and self.init != "take":
            yield f"init={self.init} needs initial weights; write train.weights=PATH"
        if self.denoiser is not None and not self.is_taken:
            yield f"denoiser={self.denoiser.name} needs a finished classifier: write weights: PATH and init: take"
        if self.denoiser is None and self.denoiser_sha256 is not None:
            yield "denoiser_weights has no effect without a denoiser; leave it out"
        if self.optimizer == "adamw" and self.momentum != 0:
            yield f"momentum={self.momentum} has no effect with optimizer=adamw; write momentum: 0.0"
        if self.schedule == "cosine" and self.lr_gamma != 1:
            yield f"lr_gamma={self.lr_gamma} has no effect with schedule=cosine; write lr_gamma: 1.0"
        if self.batch_size < self.num_processes * (self.m_train if self.multi_noise == "sub_batches" else 1):
            yield f"batch_size={self.batch_size} leaves processes or sub-batches without images"

    @property
    def is_taken(self) -> bool:
        """Whether it takes the weights of a file and trains nothing."""
        return bool(self.members) or (self.checkpoint_sha256 is not None and self.init == "take")

    @cached_property
    def members(self) -> tuple["TrainSpec", ...]:
        """The trainings of the members of an ensemble; empty for other models."""
        return tuple(build(TrainSpec, member["train"], where="member") for member in self._member_options)

    @property
    def member_hashes(self) -> tuple[str, ...]:
        return tuple(member["sha256"] for member in self._member_options)

    @property
    def _member_options(self) -> list[dict[str, Any]]:
        return self.model.options["members"] if self.model is not None and self.model.name == ENSEMBLE else []

    @property
    def source_hashes(self) -> tuple[str, ...]:
        """The hashes of the files with its weights."""
        return tuple(filter(None, (self.checkpoint_sha256, self.denoiser_sha256)))

    @property
    def network_plugins(self) -> tuple[Plugin, ...]:
        """The plug-ins of its network and its images."""
        own = filter(None, (self.model, self.data, self.denoiser))
        return (*own, *(plugin for member in self.members for plugin in member.network_plugins))

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        return (*filter(None, (self.objective, self.perturbation)), *self.network_plugins)

    @property
    def source(self) -> Source:
        """The dataset, for ``jobs.datasets``."""
        return self.data or self.dataset

    @property
    def info(self) -> DatasetInfo:
        return dataset_info(self.source)

    @property
    def method_name(self) -> str:
        """The method as tables and records name it: with a plug-in, the plug-in's name, after an attack of ours."""
        if self.members or self.denoiser:
            return "ensemble" if self.members else "denoised"
        plugged = self.objective or self.perturbation
        if plugged is None:
            return self.method
        return plugged.label if self.method == "gaussian" else f"{self.method}_{plugged.label}"

    @cached_property
    def key(self) -> str:
        """For example ``digits-pgd-s0.25-e0.50-m4-t2-1a2b3c4d``."""
        method = "" if self.method_name == "smoothadv" else f"-{self.method_name}"  # smoothadv is not named
        attack, sigma = "" if self.attack == "none" else f"-{self.attack}", decimal(self.sigma)
        rest = "" if self.method_name == "gaussian" else f"-m{self.m_train}"
        if self.attack != "none":
            rest = f"-e{decimal(self.epsilon)}-m{self.m_train}-t{self.num_steps}"
        return f"{self.dataset}{method}{attack}-s{sigma}{rest}-{digest('train', train_fields(self))}"


def train_fields(spec: TrainSpec) -> dict[str, Any]:
    """All fields of a training, as keys and files have them: those added later only at other values than before."""
    return {
        name: asdict(value) if isinstance(value, Plugin) else value
        for name, value in plain(spec).items()
        if (name, value) not in _ADDED_LATER.items()
    }


# Fields that did not always exist, at the values that describe what was done before: keys and files keep their meaning.
_ADDED_LATER = {
    "precision": "float32",
    "objective": None,
    "perturbation": None,
    "model": None,
    "data": None,
    "denoiser": None,
    "denoiser_sha256": None,
    "optimizer": "sgd",
    "schedule": "step",
    "clip_norm": None,
    "init": "take",
}
