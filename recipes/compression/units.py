"""The units of a model (neurons, filters, attention heads, feed-forward units) and the weights tied to each.

A unit can only be removed as a whole: the weights that produce it, those that scale it, and those of every
layer that reads it. Where branches are added, their units are tied to each other.

    find_units(model)  →  importance.py scores them  →  masks.py silences some  →  shrink.py cuts them out
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import keras
import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from recipes.config import UserError
from recipes.models.transformer import TransformerLanguageModel

Kind = Literal["neurons", "filters", "heads", "feed-forward"]
KINDS = get_args(Kind)
Role = Literal["makes", "scales", "reads"]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tie:
    """Entries of a variable that belong to units.

    Attributes:
        variable: Kernel, bias, scale, ...
        axis: The axis along which they belong to units.
        units: The unit of each place on that axis, (size,); `FIXED` for none.
        role: Whether the entries produce the unit, scale it, or read it.
    """

    variable: keras.Variable
    axis: int
    units: Numbers
    role: Role


@dataclass(frozen=True)
class Group:
    """Units of the same kind that one layer produces, or several layers whose outputs are added.

    Attributes:
        name: Names of these layers, joined by +.
        kind: What they are.
        units: Their numbers.
    """

    name: str
    kind: Kind
    units: Numbers


@dataclass(frozen=True)
class Units:
    """All removable units of a model.

    Attributes:
        count: Number of units; some may belong to no group.
        groups: The units, by the layers that produce them.
        ties: The weights they are tied to.
        outputs: The unit of each entry on the last axis of a layer's output, by the layer's name.
    """

    count: int
    groups: list[Group]
    ties: list[Tie]
    outputs: dict[str, Numbers]


FIXED = -1
"""The number of entries that are never removed: inputs, outputs, vectors that are normalised as a whole."""


def find_units(model: keras.Model) -> Units:
    """Find the units of a functional model, a Sequential, or a Transformer language model.

    Raises:
        UserError: A layer whose units this module does not know; it is named.
    """
    if isinstance(model, TransformerLanguageModel):
        return _transformer_units(model)
    if not isinstance(model, keras.Sequential) and not hasattr(model, "_nodes_by_depth"):
        raise UserError(
            f"{type(model).__name__} can't be shrunk: functional models, Sequential and "
            "TransformerLanguageModel can"
        )
    return _Tracer().trace(model)


def _transformer_units(model: TransformerLanguageModel) -> Units:
    groups: list[Group] = []
    ties: list[Tie] = []
    count = 0

    def number(name: str, kind: Kind, size: int) -> Numbers:
        nonlocal count
        units = np.arange(count, count + size)
        count += size
        groups.append(Group(name, kind, units))
        return units

    def tie(layer: Any, units: Numbers, role: Role) -> None:
        ties.append(Tie(layer.kernel, 0 if role == "reads" else 1, units, role))
        if layer.bias is not None and role == "makes":
            ties.append(Tie(layer.bias, 0, units, role))

    for block in model.blocks:
        attention, feed_forward = block.attention, block.feed_forward
        heads = number(f"{block.name}/attention", "heads", attention.heads)
        columns = np.repeat(heads, attention.head_width)
        for layer in (attention.query, attention.key, attention.value):
            tie(layer, columns, "makes")
        tie(attention.output_projection, columns, "reads")
        if attention.qk_norm:
            ties.append(Tie(attention.temperature, 0, heads, "scales"))
        hidden = number(f"{block.name}/feed_forward", "feed-forward", feed_forward.units)
        tie(feed_forward.widen, hidden, "makes")
        tie(feed_forward.narrow, hidden, "reads")
    return Units(count, groups, ties, {})


def nodes_of(model: keras.Model) -> Iterator[Any]:
    """Yield the nodes of a functional model's graph, each after those it reads from."""
    graph = model._functional if isinstance(model, keras.Sequential) else model
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        yield from graph._nodes_by_depth[depth]


L = keras.layers
CONVOLUTIONS = (L.Conv1D, L.Conv2D, L.Conv3D)
DEPTHWISE = (L.DepthwiseConv1D, L.DepthwiseConv2D)
CHANNEL_BY_CHANNEL = (
    L.ReLU, L.LeakyReLU, L.ELU, L.Identity, L.Rescaling,
    L.Dropout, L.SpatialDropout1D, L.SpatialDropout2D, L.SpatialDropout3D, L.GaussianDropout, L.GaussianNoise,
    L.MaxPooling1D, L.MaxPooling2D, L.MaxPooling3D, L.AveragePooling1D, L.AveragePooling2D, L.AveragePooling3D,
    L.GlobalMaxPooling1D, L.GlobalMaxPooling2D, L.GlobalMaxPooling3D,
    L.GlobalAveragePooling1D, L.GlobalAveragePooling2D, L.GlobalAveragePooling3D,
    L.ZeroPadding1D, L.ZeroPadding2D, L.ZeroPadding3D, L.Cropping1D, L.Cropping2D, L.Cropping3D,
    L.UpSampling1D, L.UpSampling2D, L.UpSampling3D,
)  # fmt: skip
"""Layers that compute each channel from that channel alone."""
WHOLE_VECTOR = (
    L.Softmax,
    L.LayerNormalization,
    L.RMSNormalization,
    L.UnitNormalization,
    L.GroupNormalization,
)
"""Layers in which every channel depends on all others: none can be removed."""
MERGES = (L.Add, L.Subtract, L.Multiply, L.Average, L.Maximum, L.Minimum)


class _Tracer:
    """Traces the channels of a functional model from layer to layer.

    Each entry of a tensor's last axis has a number. Numbers that belong to one unit are joined; those that can't be
    removed are joined with number 0. Units are the connected components of this graph.
    """

    def __init__(self) -> None:
        self.count = 1
        self.joined: list[tuple[Numbers, Numbers]] = []
        self.ties: dict[tuple[int, int], Tie] = {}
        self.made: dict[str, Numbers] = {}
        self.kinds: dict[str, Kind] = {}

    def trace(self, model: keras.Model) -> Units:
        channels: dict[int, Numbers] = {}
        for node in nodes_of(model):
            incoming = [channels[id(tensor)] for tensor in node.input_tensors]
            outgoing = self._through(node, incoming)
            for tensor in node.outputs:
                channels[id(tensor)] = outgoing
        for tensor in model.outputs:
            self._fix(channels[id(tensor)])
        return self._result()

    def _through(self, node: Any, incoming: list[Numbers]) -> Numbers:
        """Return the numbers of a layer's output, and record the weights tied to them."""
        layer = node.operation
        if node.is_input:
            return np.zeros(_last(node.outputs[0]), np.int64)
        if getattr(layer, "data_format", None) == "channels_first":
            raise self._not_understood(layer, "its channels come first")
        if not getattr(layer, "variables", ()) and not any(map(np.any, incoming)):
            return np.zeros(
                _last(node.outputs[0]), np.int64
            )  # computed from inputs alone: no unit of the model
        if isinstance(layer, MERGES):
            return self._merge(layer, incoming)
        if isinstance(layer, L.Concatenate):
            last = layer.axis in (-1, len(node.outputs[0].shape) - 1)
            return np.concatenate(incoming) if last else self._merge(layer, incoming)
        if len(incoming) != 1:
            raise self._not_understood(layer, f"it reads {len(incoming)} tensors")
        return self._through_one(layer, incoming[0], node)

    def _through_one(self, layer: Any, channels: Numbers, node: Any) -> Numbers:
        if isinstance(layer, L.Dense):
            return self._make(layer, channels, "neurons")
        if type(layer) in CONVOLUTIONS and layer.groups == 1:
            return self._make(layer, channels, "filters")
        if type(layer) in DEPTHWISE:
            return self._depthwise(layer, channels)
        if isinstance(layer, L.BatchNormalization) and layer.axis in (-1, len(node.outputs[0].shape) - 1):
            for variable in layer.weights:
                self._tie(variable, 0, channels, "scales")
            return channels
        if isinstance(layer, L.Normalization) and not channels.any():
            return channels  # these are the model's inputs, which stay
        return self._through_weightless(layer, channels, _last(node.outputs[0]))

    def _through_weightless(self, layer: Any, channels: Numbers, size: int) -> Numbers:
        if isinstance(layer, L.Flatten):
            return np.tile(channels, size // len(channels))
        if isinstance(layer, L.Activation):
            return self._activate(layer, channels)
        if isinstance(layer, CHANNEL_BY_CHANNEL):
            return channels
        if isinstance(layer, WHOLE_VECTOR):
            return self._fix(channels)
        if isinstance(layer, L.Reshape | L.Permute | L.RepeatVector):
            self._fix(channels)
            return np.zeros(size, np.int64)
        raise self._not_understood(layer, "its kind is not known")

    def _make(self, layer: Any, channels: Numbers, kind: Kind) -> Numbers:
        kernel = layer.kernel
        if layer.name not in self.made:
            self.made[layer.name] = self.count + np.arange(kernel.shape[-1])
            self.count += kernel.shape[-1]
            self.kinds[layer.name] = kind
        units = self.made[layer.name]
        self._tie(kernel, len(kernel.shape) - 2, channels, "reads")
        self._tie(kernel, len(kernel.shape) - 1, units, "makes")
        if layer.use_bias:
            self._tie(layer.bias, 0, units, "makes")
        return self._activate(layer, units)

    def _depthwise(self, layer: Any, channels: Numbers) -> Numbers:
        kernel = layer.kernel
        self._tie(kernel, len(kernel.shape) - 2, channels, "scales")
        units = np.repeat(channels, layer.depth_multiplier)
        if layer.use_bias:
            self._tie(layer.bias, 0, units, "scales")
        return self._activate(layer, units)

    def _tie(self, variable: keras.Variable, axis: int, units: Numbers, role: Role) -> None:
        """Record a tie; a layer that is used again ties its channels to those of its first use."""
        first = self.ties.setdefault((id(variable), axis), Tie(variable, axis, units, role))
        self.joined.append((first.units, units))

    def _activate(self, layer: Any, units: Numbers) -> Numbers:
        whole = layer.activation in (keras.activations.softmax, keras.activations.log_softmax)
        return self._fix(units) if whole else units

    def _merge(self, layer: Any, incoming: list[Numbers]) -> Numbers:
        first = incoming[0]
        for other in incoming[1:]:
            if len(other) != len(first):
                raise self._not_understood(layer, f"it joins {len(first)} and {len(other)} channels")
            self.joined.append((first, other))
        return first

    def _fix(self, units: Numbers) -> Numbers:
        self.joined.append((units, np.zeros_like(units)))
        return units

    def _result(self) -> Units:
        ends = tuple(np.concatenate(side) for side in zip(*self.joined, strict=True))
        graph = coo_array((np.ones(len(ends[0])), ends), shape=(self.count, self.count))
        _, components = connected_components(graph, directed=False)
        units = np.unique(components[1:][components[1:] != components[0]])
        numbers = np.full(components.max() + 1, FIXED)
        numbers[units] = np.arange(len(units))
        numbers = numbers[components]
        ties = [Tie(tie.variable, tie.axis, numbers[tie.units], tie.role) for tie in self.ties.values()]
        outputs = {name: numbers[made] for name, made in self.made.items()}
        return Units(len(units), self._groups(outputs), ties, outputs)

    def _groups(self, outputs: dict[str, Numbers]) -> list[Group]:
        makers: dict[int, list[str]] = {}
        for name, made in outputs.items():
            for unit in np.unique(made[made != FIXED]):
                makers.setdefault(int(unit), []).append(name)
        together: dict[tuple[str, ...], list[int]] = {}
        for unit, names in makers.items():
            together.setdefault(tuple(names), []).append(unit)
        return [
            Group("+".join(names), self.kinds[names[0]], np.array(members))
            for names, members in together.items()
        ]

    @staticmethod
    def _not_understood(layer: Any, why: str) -> UserError:
        return UserError(f"layer {layer.name!r} ({type(layer).__name__}) can't be shrunk: {why}")


def _last(tensor: Any) -> int:
    size: int = tensor.shape[-1]
    return size
