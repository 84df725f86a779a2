"""A classifier's batch normalisations folded into its convolutions: the same function, less arithmetic.

In evaluation mode a batch normalisation is an affine map of each channel, which the convolution
before it can do along with its own work.
"""

from __future__ import annotations

import copy
import logging

import torch
from torch import Tensor, fx, nn

from jobs.models import Classifier


class FoldedClassifier(nn.Module):
    """The classifier in evaluation mode, folded; a copy, whose parameters take no gradients.

    Where the network begins with a convolution, the normalisation's division goes into its weights
    too. Its subtraction stays: the convolution pads with zeros, which stand for the mean and not
    for black, so that at the border the mean cannot be made up for by a bias.

    Attributes:
        num_folded: Batch normalisations that went into a convolution.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self._source = (classifier,)  # in a tuple, so that it is no submodule of this one
        self.normalize = copy.deepcopy(classifier.normalize)
        self.network: nn.Module = copy.deepcopy(classifier.network)
        self._pairs: dict[str, str] = {}
        self._first: str | None = None
        graph = _traced(classifier.network)
        if graph is not None:
            self._pairs = _fold_out(graph, self.network)
            for name in self._pairs:
                _give_bias(self.network.get_submodule(name))
            self.network = fx.GraphModule(self.network, graph)
            self._first = _first_convolution(self.network)
        self.num_folded = len(self._pairs)
        self.requires_grad_(False).eval()
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the source's present weights and statistics."""
        source = self._source[0]
        self.normalize.load_state_dict(source.normalize.state_dict())
        theirs = dict(source.network.named_modules())
        for name, module in self.network.named_modules():
            if name in self._pairs:
                assert isinstance(module, nn.Conv2d)
                _fold(theirs[name], theirs[self._pairs[name]], into=module)
            elif name in theirs and not list(module.children()):
                module.load_state_dict(theirs[name].state_dict())
        if self._first is not None:
            first = self.network.get_submodule(self._first)
            assert isinstance(first, nn.Conv2d)
            first.weight.div_(self.normalize.std)  # (O, C, h, w) by (C, 1, 1)
            self.normalize.std.fill_(1.0)

    def forward(self, inputs_BCHW: Tensor) -> Tensor:
        logits: Tensor = self.network(self.prepared(inputs_BCHW))
        return logits

    def prepared(self, inputs_BCHW: Tensor) -> Tensor:
        """What is left of the normalisation."""
        if self._first is None:
            return self.normalize(inputs_BCHW)  # type: ignore[no-any-return]
        return (inputs_BCHW - self.normalize.mean).contiguous(memory_format=torch.channels_last)


def _traced(network: nn.Module) -> fx.Graph | None:
    try:
        return fx.Tracer().trace(network)
    except fx.proxy.TraceError as error:
        logging.info("not folded, since the network's course depends on its input: %s", error)
        return None


def _fold_out(graph: fx.Graph, network: nn.Module) -> dict[str, str]:
    """Take batch normalisations right after convolutions out of a graph; convolution name to theirs."""
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


def _first_convolution(network: fx.GraphModule) -> str | None:
    """The convolution that alone is given the network's input; None where there is no such thing."""
    placeholder = next(node for node in network.graph.nodes if node.op == "placeholder")
    if len(placeholder.users) != 1:
        return None
    (user,) = placeholder.users
    if user.op != "call_module":
        return None
    module = network.get_submodule(str(user.target))
    is_plain = type(module) is nn.Conv2d and module.groups == 1 and module.padding_mode == "zeros"
    return str(user.target) if is_plain else None


def _fold(convolution: nn.Module, norm: nn.Module, *, into: nn.Conv2d) -> None:
    """Weights and bias that do what the two do one after the other, computed in double precision."""
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert into.bias is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double()
    if convolution.bias is not None:
        shift = shift + convolution.bias.double()
    bias = shift * scale + norm.bias.double() if norm.affine else shift * scale
    into.weight.copy_(convolution.weight.double() * scale.view(-1, 1, 1, 1))
    into.bias.copy_(bias)
