"""A classifier's batch normalisations folded into its convolutions: the same function, less arithmetic.

In evaluation mode a batch normalisation is an affine map of each channel, which the convolution
before it can do along with its own work.
"""

import copy
import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, fx, nn

from jobs.networks.classifier import Classifier


class _Pair(NamedTuple):
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
            self.network = fx.GraphModule(self.network, graph)
            self._first = _first_convolution(self.network)
        self.network.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._dtype = dtype
        theirs = dict(classifier.network.named_modules())
        self.pairs = [
            _Pair(
                cast(nn.Conv2d, theirs[convolution]),
                cast(nn.BatchNorm2d, theirs[norm]),
                cast(nn.Conv2d, self.network.get_submodule(convolution)),
            )
            for convolution, norm in names.items()
        ]
        # Other parameters and buffers, as (module, its counterpart in the source, name). Constants made by tracing do
        # not belong to the source and do not change.
        self._copied = [
            (module, theirs[name], value)
            for name, module in self.network.named_modules()
            if name in theirs and name not in names
            for value, _ in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            if hasattr(theirs[name], value)
        ]
        eps = [pair.norm.eps for pair in self.pairs for _ in range(pair.norm.num_features)]  # of every channel
        device = classifier.normalize.mean.device
        self.register_buffer("_eps", torch.tensor(eps, dtype=torch.float64, device=device), persistent=False)
        self.requires_grad_(False).eval()
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the source's present weights and statistics, in place and without waiting for the device."""
        self.normalize.load_state_dict(self._source[0].normalize.state_dict())
        if self._copied:
            own = [getattr(module, name) for module, _, name in self._copied]
            torch._foreach_copy_(own, [getattr(source, name) for _, source, name in self._copied])
        factors, biases = _affine_maps(self.pairs, self._eps)
        for pair, factor, bias in zip(self.pairs, factors, biases, strict=True):
            factor_O111 = factor.view(-1, 1, 1, 1)
            if pair.folded is self._first:
                factor_O111 = factor_O111 / self.normalize.std.double()  # by (C, 1, 1)
            # Rounded once: to the folded weight's precision, in the end.
            torch.mul(pair.convolution.weight, factor_O111, out=pair.folded.weight)
            assert pair.folded.bias is not None
            pair.folded.bias.copy_(bias)
        if self._first is not None and all(pair.folded is not self._first for pair in self.pairs):
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
    """Remove batch normalisations right after convolutions from a graph; returns their names by convolution.

    The convolutions get a bias.
    """
    modules = dict(network.named_modules())
    pairs: dict[str, str] = {}
    for node in list(graph.nodes):
        if node.op != "call_module" or not isinstance(modules[str(node.target)], nn.BatchNorm2d):
            continue
        before = node.args[0]
        uses = [other for other in graph.nodes if other.op == "call_module" and other.target == before.target]
        convolution = modules[str(before.target)] if before.op == "call_module" else None
        has_statistics = modules[str(node.target)].running_mean is not None
        if type(convolution) is nn.Conv2d and has_statistics and len(before.users) == 1 and len(uses) == 1:
            node.replace_all_uses_with(before)
            graph.erase_node(node)
            pairs[str(before.target)] = str(node.target)
            if convolution.bias is None:
                convolution.bias = nn.Parameter(torch.zeros_like(convolution.weight[:, 0, 0, 0]))
    return pairs


def _first_convolution(network: fx.GraphModule) -> nn.Conv2d | None:
    """The convolution that is the only user of the network's input, if there is one."""
    users = [*next(node for node in network.graph.nodes if node.op == "placeholder").users]
    if len(users) == 1 and users[0].op == "call_module":
        module = network.get_submodule(str(users[0].target))
        if type(module) is nn.Conv2d and module.groups == 1 and module.padding_mode == "zeros":
            return module
    return None


def _affine_maps(pairs: Sequence[_Pair], eps: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """For each pair the factor of its convolution's weights, and its bias, for each channel, in double precision.

    All channels of all pairs at once: a hundred pairs one by one would cost a GPU a thousand launches.
    """
    if not pairs:
        return [], []
    convolutions, norms = [pair.convolution for pair in pairs], [pair.norm for pair in pairs]
    sizes = [norm.num_features for norm in norms]

    def joined(modules: Iterable[nn.Module], name: str, missing: float) -> Tensor:
        values = zip((getattr(module, name) for module in modules), sizes, strict=True)
        return torch.cat([eps.new_full((size,), missing) if one is None else one for one, size in values]).double()

    factor = (joined(norms, "running_var", 1.0) + eps).rsqrt() * joined(norms, "weight", 1.0)
    shift = joined(convolutions, "bias", 0.0) - joined(norms, "running_mean", 0.0)
    bias = shift * factor + joined(norms, "bias", 0.0)
    return torch.split(factor, sizes), torch.split(bias, sizes)
