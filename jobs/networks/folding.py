"""A classifier's batch normalisations folded into its convolutions: the same function, less arithmetic.

In evaluation mode a batch normalisation is an affine map of each channel, which the convolution
before it can do along with its own work.
"""

import copy
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, fx, nn

from jobs.networks.classifier import Classifier


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pair:
    """A convolution of the source, the batch normalisation after it, and the convolution that replaces both."""

    convolution: nn.Conv2d
    norm: nn.BatchNorm2d
    folded: nn.Conv2d


class FoldedClassifier(nn.Module):
    """The classifier in evaluation mode, folded; a copy, whose parameters take no gradients.

    Where the network begins with a convolution, the normalisation's division goes into its weights
    too. Its subtraction stays: the convolution pads with zeros, which stand for the mean and not
    for black, so that at the border the mean cannot be made up for by a bias.

    Whatever the network's precision, inputs, the normalisation and logits are of the classifier's:
    pixels are known to that precision.
    """

    num_folded: int  # batch normalisations that went into a convolution
    _eps: Tensor

    def __init__(self, classifier: Classifier, dtype: torch.dtype | None = None) -> None:
        """A copy, which ``refresh`` updates; ``dtype`` is that of the network's arithmetic, if not float32."""
        super().__init__()
        self._source = (classifier,)  # in a tuple, so that it is not a submodule of this one
        self.normalize = copy.deepcopy(classifier.normalize)
        # In evaluation mode before it is traced, since tracing fixes the value of ``self.training``.
        self.network: nn.Module = copy.deepcopy(classifier.network).eval()
        names: dict[str, str] = {}
        self._first: nn.Conv2d | None = None
        graph = _traced(self.network)
        if graph is not None:
            names = _fold_out(graph, self.network)
            for name in names:
                _give_bias(self.network.get_submodule(name))
            self.network = fx.GraphModule(self.network, graph)
            self._first = _first_convolution(self.network)
        self.network.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._dtype = dtype
        self._pairs = _pairs(names, classifier.network, self.network)
        self._copied = _same_modules(names, classifier.network, self.network)
        eps = [pair.norm.eps for pair in self._pairs for _ in range(pair.norm.num_features)]  # of every channel
        device = classifier.normalize.mean.device
        self.register_buffer("_eps", torch.tensor(eps, dtype=torch.float64, device=device), persistent=False)
        self.num_folded = len(self._pairs)
        self.requires_grad_(False).eval()
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the source's present weights and statistics, in place and without waiting for the device."""
        self.normalize.load_state_dict(self._source[0].normalize.state_dict())
        if self._copied:
            values = [(_values(folded), _values(source)) for folded, source in self._copied]
            # Constants made by tracing do not belong to the source and do not change.
            own = [value for folded, source in values for name, value in folded.items() if name in source]
            theirs = [source[name] for folded, source in values for name in folded if name in source]
            torch._foreach_copy_(own, theirs)
        factors, biases = _affine_maps(self._pairs, self._eps)
        for pair, factor, bias in zip(self._pairs, factors, biases, strict=True):
            factor_O111 = factor.view(-1, 1, 1, 1)
            if pair.folded is self._first:
                factor_O111 = factor_O111 / self.normalize.std.double()  # by (C, 1, 1)
            # Rounded once: to the folded weight's precision, in the end.
            torch.mul(pair.convolution.weight, factor_O111, out=pair.folded.weight)
            assert pair.folded.bias is not None
            pair.folded.bias.copy_(bias)
        if self._first is not None and all(pair.folded is not self._first for pair in self._pairs):
            self._first.weight.div_(self.normalize.std)

    def forward(self, inputs_BCHW: Tensor) -> Tensor:
        prepared_BCHW = self.prepared(inputs_BCHW).to(dtype=self._dtype, memory_format=torch.channels_last)
        logits: Tensor = self.network(prepared_BCHW)
        return logits.to(inputs_BCHW.dtype)

    def prepared(self, inputs_BCHW: Tensor) -> Tensor:
        """The part of the normalisation that was not folded."""
        if self._first is None:
            return self.normalize(inputs_BCHW)  # type: ignore[no-any-return]
        return inputs_BCHW - self.normalize.mean


def _traced(network: nn.Module) -> fx.Graph | None:
    try:
        return fx.Tracer().trace(network)
    except Exception as error:  # it runs the network's own code on stand-ins for tensors: anything may fail
        logging.info("not folded, because the network cannot be traced: %s", error)
        return None


def _fold_out(graph: fx.Graph, network: nn.Module) -> dict[str, str]:
    """Remove batch normalisations right after convolutions from a graph; returns their names by convolution."""
    modules = dict(network.named_modules())
    pairs: dict[str, str] = {}
    for node in list(graph.nodes):
        if node.op != "call_module" or not isinstance(modules[str(node.target)], nn.BatchNorm2d):
            continue
        before = node.args[0]
        uses = [other for other in graph.nodes if other.op == "call_module" and other.target == before.target]
        is_convolution = before.op == "call_module" and type(modules[str(before.target)]) is nn.Conv2d
        has_statistics = modules[str(node.target)].running_mean is not None
        if is_convolution and has_statistics and len(before.users) == 1 and len(uses) == 1:
            node.replace_all_uses_with(before)
            graph.erase_node(node)
            pairs[str(before.target)] = str(node.target)
    return pairs


def _give_bias(convolution: nn.Module) -> None:
    assert isinstance(convolution, nn.Conv2d)
    if convolution.bias is None:
        convolution.bias = nn.Parameter(torch.zeros_like(convolution.weight[:, 0, 0, 0]))


def _first_convolution(network: fx.GraphModule) -> nn.Conv2d | None:
    """The convolution that is the only user of the network's input, if there is one."""
    placeholder = next(node for node in network.graph.nodes if node.op == "placeholder")
    if len(placeholder.users) != 1:
        return None
    (user,) = placeholder.users
    if user.op != "call_module":
        return None
    module = network.get_submodule(str(user.target))
    is_plain = type(module) is nn.Conv2d and module.groups == 1 and module.padding_mode == "zeros"
    return cast(nn.Conv2d, module) if is_plain else None


def _pairs(names: Mapping[str, str], source: nn.Module, folded: nn.Module) -> list[_Pair]:
    """The pairs whose convolutions and normalisations have these names."""
    return [
        _Pair(
            convolution=cast(nn.Conv2d, source.get_submodule(convolution)),
            norm=cast(nn.BatchNorm2d, source.get_submodule(norm)),
            folded=cast(nn.Conv2d, folded.get_submodule(convolution)),
        )
        for convolution, norm in names.items()
    ]


def _same_modules(names: Mapping[str, str], source: nn.Module, folded: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """Modules of the folded network that have parameters or buffers, and their counterparts in the source."""
    theirs = dict(source.named_modules())
    return [
        (module, theirs[name])
        for name, module in folded.named_modules()
        if name in theirs and name not in names and _values(module)
    ]


def _values(module: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a module by name, without those of its submodules."""
    return {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}


def _affine_maps(pairs: Sequence[_Pair], eps: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """For each pair the factor of its convolution's weights, and its bias, for each channel, in double precision.

    All channels of all pairs at once: a hundred pairs one by one would cost a GPU a thousand launches.
    """
    if not pairs:
        return [], []

    sizes = [pair.norm.num_features for pair in pairs]

    def joined(values: Iterable[Tensor | None], missing: float) -> Tensor:
        present = [
            eps.new_full((size,), missing) if value is None else value
            for value, size in zip(values, sizes, strict=True)
        ]
        return torch.cat(present).double()

    factor = (joined((pair.norm.running_var for pair in pairs), 1.0) + eps).rsqrt()
    factor = factor * joined((pair.norm.weight for pair in pairs), 1.0)
    shift = joined((pair.convolution.bias for pair in pairs), 0.0) - joined(
        (pair.norm.running_mean for pair in pairs), 0.0
    )
    bias = shift * factor + joined((pair.norm.bias for pair in pairs), 0.0)
    return torch.split(factor, sizes), torch.split(bias, sizes)
