"""What decoding takes, timed: a packed layer, and the step of a whole model."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, islice
from statistics import median

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel, StaticCache

from bitfront import formats
from bitfront.errors import InvalidArgument, InvalidModel, first_line
from bitfront.kernels.replays import ROTATED_BYTES as ROTATED_BYTES_OF_GPU
from bitfront.kernels.replays import Call, Graph, Launches, n_sets
from bitfront.models.packed_checkpoint import replace_with_packed
from bitfront.models.quant_linear import PackedWeight, QuantLinear
from bitfront.models.tasks import device_of
from bitfront.space import SearchSpace
from bitfront.timings import Shape

logger = logging.getLogger(__name__)

ROTATED_BYTES = {"cpu": 64 * 2**20, "cuda": ROTATED_BYTES_OF_GPU}
"""Weights that calls go round, beyond the last cache of current devices."""
_DRAWN_ROWS = 64
"""Rows of a weight that are drawn and quantized; the others repeat them."""
_WARM_UP = 3
_LEAST_CALLS = 5
_LEAST_NS = 50_000
"""Calls that are shorter are timed together."""


def nanoseconds(
    calls: Sequence[Call],
    device: torch.device,
    seconds: float,
    after: Callable[[], None] | None = None,
) -> float:
    """Median time of one call.

    On a CPU calls are timed one by one, or some together where they are short: by the clock of the
    wall, or with a single thread by that of the thread, which other processes do not move on. On a
    GPU all of them are captured as one CUDA graph, whose
    replays are timed by events, so that launching from Python does not count.

    Args:
        calls: alike, but for weights of their own: they go round, as a model's layers do, so that
            no weight waits in a cache.
        device: where they run.
        seconds: how long to go on, at least five calls.
        after: runs after each call (on a GPU after each replay) and is not timed: undoes what the
            call changed, or does what a model would do before the next.
    """
    with torch.no_grad():
        if device.type == "cuda":
            return _by_replays(calls, seconds, after)
        return _one_by_one(calls, seconds, after)


def _one_by_one(calls: Sequence[Call], seconds: float, after: Callable[[], None] | None) -> float:
    clock = time.thread_time_ns if torch.get_num_threads() == 1 else time.perf_counter_ns
    ring, undo, samples = cycle(calls), after or (lambda: None), list[float]()
    n_warm, n_together, end = max(_WARM_UP, len(calls)), 1, 0.0
    while len(samples) < n_warm + _LEAST_CALLS or time.perf_counter() < end:
        timed = list(islice(ring, n_together))
        start = clock()
        for call in timed:
            call()
        samples.append((clock() - start) / n_together)
        undo()
        if len(samples) == n_warm:
            end = time.perf_counter() + seconds
            if after is None:  # reading the clock takes a part of a microsecond
                n_together = max(1, round(_LEAST_NS / max(median(samples), 1.0)))
    return float(median(samples[n_warm:]))


def _by_replays(calls: Sequence[Call], seconds: float, after: Callable[[], None] | None) -> float:
    work: Launches
    try:
        work = Graph(calls, after)
    except RuntimeError as error:
        logger.warning(
            "No CUDA graph (%s): the time has launches from Python in it.", first_line(error)
        )
        work = Launches(calls, after)
    samples: list[float] = []
    end = time.perf_counter() + seconds
    while len(samples) < _WARM_UP + _LEAST_CALLS or time.perf_counter() < end:
        samples.append(1e9 * work.seconds())
    return median(samples[_WARM_UP:])


def layer_calls(
    shape: Shape, format: str, batch: int, like: torch.Tensor, rotated_bytes: int
) -> list[Call]:
    """Calls of one layer as a packed model makes them, each on a copy of its weight.

    Args:
        shape: `(out_features, in_features)`.
        format: its name; `"bf16"` for a plain linear layer.
        batch: rows of the input `[batch, 1, in_features]`.
        like: has dtype and device of activations.
        rotated_bytes: how much the copies hold together; at least one, 2,048 at most.
    """
    inputs = torch.randn(batch, 1, shape[1], generator=_generator()).to(like)
    first = _layer(shape, format, like)
    nbytes = sum(t.numel() * t.itemsize for t in (*first.parameters(), *first.buffers()))
    n_others = n_sets(nbytes, rotated_bytes, at_least=1) - 1
    return [partial(layer, inputs) for layer in (first, *(_copy(first) for _ in range(n_others)))]


def _copy(layer: nn.Module) -> nn.Module:
    """The layer with tensors of its own; `deepcopy` takes ten times as long for a small one."""
    made = copy.copy(layer)
    made._parameters = {k: _cloned(p) for k, p in layer._parameters.items()}
    made._buffers = {k: None if b is None else b.clone() for k, b in layer._buffers.items()}
    return made


def _cloned(parameter: nn.Parameter | None) -> nn.Parameter | None:
    return None if parameter is None else nn.Parameter(parameter.detach().clone(), False)


def _layer(shape: Shape, format: str, like: torch.Tensor) -> nn.Module:
    if format == "bf16":
        linear = nn.Linear(shape[1], shape[0], bias=False, device=like.device, dtype=like.dtype)
        return linear.requires_grad_(False).eval()
    packed = QuantLinear(formats.named(format), shape, like.dtype)
    fill(packed)
    return packed.to(like.device).eval()


def fill(packed: PackedWeight) -> None:
    """Fill an empty packed layer with a quantized Gaussian weight, whose rows repeat."""
    format, (n_rows, n_columns) = packed.format, packed.shape
    drawn = torch.randn(min(n_rows, _DRAWN_ROWS), n_columns, generator=_generator()) / 50
    qparams = format.qparams(drawn)
    tensors = format.pack(format.encode(drawn, qparams), qparams)
    whole = {}
    for name, stored in format.stored(packed.shape).items():
        tensor = tensors[name]
        if tuple(tensor.shape) != stored.shape:
            n_times = -(-stored.shape[0] // tensor.shape[0])
            tensor = tensor.repeat(n_times, *(1 for _ in stored.shape[1:]))[: stored.shape[0]]
        whole[name] = tensor.contiguous()
    packed.load_state_dict(whole)


class Hollow(nn.Module):
    """Stands for a linear layer and computes nothing: zeros `[..., out_features]` without memory.

    Args:
        n_outputs: `out_features`.
        like: has dtype and device.
    """

    def __init__(self, n_outputs: int, like: torch.Tensor) -> None:
        super().__init__()
        self.n_outputs = n_outputs
        self.register_buffer("zero", like.new_zeros(()), persistent=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """`[..., in_features]` to `[..., out_features]`."""
        zero: torch.Tensor = self.get_buffer("zero")
        return zero.expand(*inputs.shape[:-1], self.n_outputs)


def hollowed(model: nn.Module, space: SearchSpace) -> nn.Module:
    """The model, changed for good: searched layers compute nothing, pinned ones are packed.

    What a decoding step of it takes is what a search cannot change.
    """
    like = next(model.parameters()).detach()
    for layer in space.layers:
        model.set_submodule(layer.name, Hollow(layer.shape[0], like))
    for layer, format in space.pinned:
        if format.name != "bf16":
            replace_with_packed(model, layer.name, format)
            packed = model.get_submodule(layer.name)
            assert isinstance(packed, PackedWeight)
            fill(packed)
            packed.to(like.device)
    return model


class DecodingStep:
    """One token for each of some sequences, whose cached context is random numbers.

    The cache is the one that `generate` uses: on a CPU it grows, on a GPU it is static, as CUDA
    graphs need it, and the row of the embedding is looked up before the step, as the token comes
    from outside the graph. Every call decodes the token after the same context.

    Args:
        model: a causal language model.
        batch: how many sequences.
        context: tokens that each has.
        static: whether the cache has its final size at once; by default on a GPU.

    Raises:
        InvalidArgument: the context is longer than the model's positions allow.
        InvalidModel: its cache is not of keys and values.
    """

    def __init__(
        self, model: PreTrainedModel, batch: int, context: int, static: bool | None = None
    ) -> None:
        longest = getattr(model.config, "max_position_embeddings", None)
        if longest is not None and context + 1 > longest:
            raise InvalidArgument(
                f"A context of {context} tokens leaves no room for the next one in the {longest} "
                f"positions of the model: give --context {longest - 1} or less."
            )
        device = device_of(model)
        self.model, self.batch, self.context = model, batch, context
        self.tokens = torch.ones(batch, 1, dtype=torch.long, device=device)
        is_static = device.type == "cuda" if static is None else static
        self.cache = (
            StaticCache(config=model.config, max_cache_len=context + 1)
            if is_static
            else DynamicCache(config=model.config)
        )
        with torch.no_grad():
            rows = model.get_input_embeddings()(self.tokens) if is_static else None
        self.inputs = {"input_ids": self.tokens} if rows is None else {"inputs_embeds": rows}
        for index, (keys, values) in enumerate(self._one_token()):
            # Two tensors of keys and values are alike in shape but for multi-head latent attention.
            drawn = (
                torch.randn(batch, t.shape[1], context, t.shape[3], generator=_generator()).to(t)
                for t in (keys, values)
            )
            self.cache.update(*drawn, index)

    def _one_token(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values of each layer after one token, `[1, n_heads, 1, head_dim]`."""
        probe = DynamicCache(config=self.model.config)
        with torch.no_grad():
            self.model(self.tokens[:1], past_key_values=probe, use_cache=True)
        found = [(getattr(x, "keys", None), getattr(x, "values", None)) for x in probe.layers]
        whole = [(k, v) for k, v in found if k is not None and v is not None]
        if len(whole) < len(found) or not whole or any(k.dim() != 4 for k, _ in whole):
            raise InvalidModel(
                f"{type(self.model).__name__} has a cache that is not of keys and values in every "
                "layer: time only its layers, with --shapes, and give latency:rest_ms=MS."
            )
        return whole

    def run(self) -> torch.Tensor:
        """Logits `[batch, 1, vocabulary]`."""
        cached = {"past_key_values": self.cache, "use_cache": True}
        logits: torch.Tensor = self.model(**self.inputs, **cached).logits
        return logits

    def rewind(self) -> None:
        """Forget the last token; a window that slides keeps it, and slides on by it."""
        for layer in self.cache.layers:
            if isinstance(self.cache, StaticCache):
                # Not one less: a step that was captured and not run has not added one.
                layer.cumulative_length.fill_(self.context)
                if hasattr(layer, "cumulative_length_int"):
                    layer.cumulative_length_int = self.context
            elif not getattr(layer, "is_sliding", False):
                layer.crop(-1)

    def nanoseconds(self, seconds: float) -> float:
        """Median time of one step."""
        return nanoseconds([self.run], self.tokens.device, seconds, self.rewind)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
