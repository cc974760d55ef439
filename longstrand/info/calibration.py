"""How fast this machine is at what an encoder does, measured in a few seconds and kept in the cache folder.

Every rate is seconds for one unit of work, forward and backward apart. The file is bound to the processor, the number
of threads and the version of PyTorch; on another machine, or with other threads, the measurement is repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from longstrand.models.attention.layer import attend
from longstrand.models.attention.patterns import BlockSparse
from longstrand.models.linear import Linear
from longstrand.runtime import cache_dir, fingerprint_bytes, machine, read_json, write_json

VERSION = 2
WIDTHS = (64, 256, 768)
LENGTHS = (128, 1024)
_ROWS = 1024
_FRESH = 16 << 20
"""Numbers of a block that the C library asks the system for and gives back each time (64 MB)."""
_SHORTEST = 0.04
"""Seconds that one measurement takes at least."""


@dataclass(frozen=True)
class Rates:
    """Seconds for one unit, as (forward, backward).

    Attributes:
        linear: by width: one multiplication and addition counted as two, of a square layer of that width, through the
            encoder's own linear layer.
        decoder: the same from 256 numbers to a vocabulary, through PyTorch's.
        fused: by length: attention without a mask, one (query, key) pair of one head of 64 numbers.
        masked: the same under a dense float bias.
        dropout: the same with all probabilities made and dropped.
        gather: the same by gathered blocks.
        norm: one number of a layer norm.
        activation: one number of a GELU.
        dropped: one number of a dropout.
        plain: one number of an addition or multiplication.
        loss: one logit of a cross-entropy.
        fresh: one byte of memory when it is first touched, which the system clears (forward only).
        optimizer: one weight in clipping and AdamW (forward only).
        layer: what a layer costs beside its work: starting some thirty operations.
    """

    linear: dict[int, tuple[float, float]]
    decoder: tuple[float, float]
    fused: dict[int, tuple[float, float]]
    masked: tuple[float, float]
    dropout: tuple[float, float]
    gather: tuple[float, float]
    norm: tuple[float, float]
    activation: tuple[float, float]
    dropped: tuple[float, float]
    plain: tuple[float, float]
    loss: tuple[float, float]
    fresh: tuple[float, float]
    optimizer: tuple[float, float]
    layer: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Give everything as a plain dictionary."""
        return asdict(self)


def calibrate(*, again: bool = False) -> Rates:
    """Give the rates of this machine: measured before, or now (a few seconds).

    Args:
        again: measure even if there is a result.
    """
    path = _path()
    if not again and path.is_file():
        stored = read_json(path)["rates"]
        return Rates(**{name: _as_stored(value) for name, value in stored.items()})
    rates = measure_rates()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"machine": machine(), "torch": torch.__version__, "rates": rates.to_dict()})
    return rates


def _as_stored(value: Any) -> Any:
    return {int(size): tuple(pair) for size, pair in value.items()} if isinstance(value, dict) else tuple(value)


def _path() -> Path:
    about = machine()
    identity = [VERSION, about["processor"], about["cores"], torch.get_num_threads(), torch.__version__]
    return cache_dir() / f"calibration-{fingerprint_bytes(repr(identity).encode())[7:19]}.json"


def measure_rates() -> Rates:
    """Time the operations, each a few times, and take the best (a busy machine only ever adds)."""
    draw = torch.Generator().manual_seed(0)

    def made(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw).requires_grad_()

    linear = {}
    for width in WIDTHS:
        layer, inputs = Linear(width, width), made(_ROWS, width)
        flops = 2.0 * _ROWS * width * width
        linear[width] = _pair(lambda layer=layer, x=inputs: layer(x), flops, (inputs, *layer.parameters()))
    fused = {}
    for length in LENGTHS:
        some = _states(made, 8 * LENGTHS[-1] // length // 4, length)
        number = float(some[0].numel() // 64 * length)
        fused[length] = _pair(lambda some=some: F.scaled_dot_product_attention(*some), number, some)
    states = _states(made, 1, 512)
    pairs = 4.0 * 512 * 512
    bias = torch.zeros(1, 4, 512, 512)
    values, scale, table = made(_ROWS, 1024), torch.ones(1024), made(256, 8192)
    words, hidden = made(4096, 256), made(512, 256)
    targets, size = torch.zeros(256, dtype=torch.long), float(values.numel())
    return Rates(
        linear=linear,
        decoder=_pair(lambda: F.linear(hidden, words), 2.0 * 512 * 256 * 4096, (hidden, words)),
        fused=fused,
        masked=_pair(lambda: F.scaled_dot_product_attention(*states, attn_mask=bias), pairs, states),
        dropout=_pair(lambda: F.scaled_dot_product_attention(*states, dropout_p=0.1), pairs, states),
        gather=_gather(made),
        norm=_pair(lambda: F.layer_norm(values, (1024,), scale), size, (values,)),
        activation=_pair(lambda: F.gelu(values), size, (values,)),
        dropped=_pair(lambda: F.dropout(values, 0.1), size, (values,)),
        plain=_pair(lambda: values + values, size, (values,)),
        loss=_pair(lambda: F.cross_entropy(table, targets), float(table.numel()), (table,)),
        fresh=_fresh(),
        optimizer=_optimizer(),
        layer=_layer(),
    )


def _states(made: Callable[..., Tensor], batch: int, length: int) -> list[Tensor]:
    """Make queries, keys and values of 4 heads that lie in memory as in the encoder."""
    return [made(batch, length, 4, 64).transpose(1, 2) for _ in range(3)]


def _fresh() -> tuple[float, float]:
    """Time the first write to memory against the second."""
    kept = torch.empty(_FRESH)
    first = _best(lambda: torch.empty(_FRESH).fill_(1.0))
    return max(first - _best(lambda: kept.fill_(1.0)), 0.0) / (4 * _FRESH), 0.0


def _gather(made: Callable[..., Tensor]) -> tuple[float, float]:
    """Time blocks that are gathered: 16 blocks of 64 tokens, each seeing 5."""
    length, size = 1024, 64
    places = torch.arange(length // size)
    layout = ((places[:, None] - places) % len(places) < 5).to(torch.uint8).expand(4, -1, -1)
    states = [made(1, 4, length, 64) for _ in range(3)]
    pattern = BlockSparse(layout.contiguous(), size)
    return _pair(lambda: attend(*states, pattern=pattern, path="gather")[0], 4.0 * length * 5 * size, states)


def _optimizer() -> tuple[float, float]:
    weights = [torch.nn.Parameter(torch.randn(512, 1024)) for _ in range(4)]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    optimizer = torch.optim.AdamW(weights, lr=1e-9, fused=True)

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()

    return _best(step) / sum(weight.numel() for weight in weights), 0.0


def _layer() -> tuple[float, float]:
    """Time one layer of a model so small that starting its operations is all there is."""
    from longstrand.models.config import preset
    from longstrand.models.pretrained import MODELS

    sizes = {"hidden_size": 8, "num_attention_heads": 1, "intermediate_size": 8, "num_hidden_layers": 8}
    model = MODELS["encoder"](preset("tiny", vocab_size=9, **sizes))
    ids = torch.ones(1, 4, dtype=torch.long)
    forward, backward = _pair(lambda: model(ids).last_hidden_state, 1.0, list(model.parameters()))
    return forward / 8, backward / 8


def _pair(call: Callable[[], Tensor], work: float, inputs: Any) -> tuple[float, float]:
    """Time an operation forward (as in training) and backward; seconds a unit of work."""
    output = call()
    gradient = torch.ones_like(output)

    def both() -> None:
        torch.autograd.grad(call(), inputs, gradient, allow_unused=True)

    forward = _best(call)
    return forward / work, max(_best(both) - forward, 0.3 * forward) / work


def _best(call: Callable[[], Any]) -> float:
    """Give the seconds of one call: the best of three groups of calls."""
    call()
    start = time.perf_counter()
    call()
    count = max(1, int(_SHORTEST / max(time.perf_counter() - start, 1e-7)))
    groups = []
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(count):
            call()
        groups.append((time.perf_counter() - start) / count)
    return min(groups)
