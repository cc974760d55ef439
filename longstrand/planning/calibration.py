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

from longstrand.models.attention import attend
from longstrand.models.patterns import BlockSparse
from longstrand.runtime import cache_dir, fingerprint_bytes, machine, read_json, write_json

VERSION = 1
WIDTHS = (64, 256, 1024)
_ROWS = 1024
_SHORTEST = 0.04
"""Seconds that one measurement takes at least."""


@dataclass(frozen=True)
class Rates:
    """Seconds for one unit, as (forward, backward).

    Attributes:
        linear: by width: one multiplication and addition counted as two, of a square layer of that width.
        fused: attention without a mask, one (query, key) pair of one head of 64 numbers.
        masked: the same under a dense float bias.
        dropout: the same with all probabilities made and dropped.
        gather: the same by gathered blocks.
        norm: one number of a layer norm.
        activation: one number of a GELU.
        dropped: one number of a dropout.
        plain: one number of an addition or multiplication.
        loss: one logit of a cross-entropy.
        optimizer: one weight in clipping and AdamW (forward only).
        layer: what a layer costs beside its work: starting some thirty operations.
    """

    linear: dict[int, tuple[float, float]]
    fused: tuple[float, float]
    masked: tuple[float, float]
    dropout: tuple[float, float]
    gather: tuple[float, float]
    norm: tuple[float, float]
    activation: tuple[float, float]
    dropped: tuple[float, float]
    plain: tuple[float, float]
    loss: tuple[float, float]
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
        linear = {int(width): tuple(pair) for width, pair in stored.pop("linear").items()}
        return Rates(linear=linear, **{name: tuple(pair) for name, pair in stored.items()})  # type: ignore[arg-type]
    rates = measure_rates()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"machine": machine(), "torch": torch.__version__, "rates": rates.to_dict()})
    return rates


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
        weight, inputs = made(width, width), made(_ROWS, width)
        flops = 2.0 * _ROWS * width * width
        linear[width] = _pair(lambda w=weight, x=inputs: F.linear(x, w), flops, (inputs, weight))
    states = [made(1, 4, 512, 64) for _ in range(3)]
    pairs = 4.0 * 512 * 512
    bias = torch.zeros(1, 4, 512, 512)
    values, scale, table = made(_ROWS, 1024), torch.ones(1024), made(256, 8192)
    targets, size = torch.zeros(256, dtype=torch.long), float(values.numel())
    return Rates(
        linear=linear,
        fused=_pair(lambda: F.scaled_dot_product_attention(*states), pairs, states),
        masked=_pair(lambda: F.scaled_dot_product_attention(*states, attn_mask=bias), pairs, states),
        dropout=_pair(lambda: F.scaled_dot_product_attention(*states, dropout_p=0.1), pairs, states),
        gather=_gather(made),
        norm=_pair(lambda: F.layer_norm(values, (1024,), scale), size, (values,)),
        activation=_pair(lambda: F.gelu(values), size, (values,)),
        dropped=_pair(lambda: F.dropout(values, 0.1), size, (values,)),
        plain=_pair(lambda: values + values, size, (values,)),
        loss=_pair(lambda: F.cross_entropy(table, targets), float(table.numel()), (table,)),
        optimizer=_optimizer(),
        layer=_layer(),
    )


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
