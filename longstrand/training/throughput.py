"""Training speed: tokens/s, bases/s, and the share of the machine's matrix throughput that the model uses.

Model FLOPs follow the usual count (Kaplan et al. 2020; PaLM appendix B): forward + backward cost 6 FLOPs per token and
matrix parameter, plus ``12 * layers * hidden * length`` per token for full attention. The peak is measured on this
machine with one large matrix product in the training precision, not taken from a data sheet.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cache

import torch


@dataclass
class ThroughputMeter:
    """A clock that is read with every training row.

    ``flops_per_token``: of one trained token; ``peak_flops``: of this machine, in FLOP/s.
    """

    flops_per_token: float
    peak_flops: float
    _since: float = field(default_factory=time.perf_counter)
    _before: dict[str, int] = field(default_factory=lambda: {"tokens": 0, "bases": 0})

    def restart(self, counts: dict[str, int]) -> None:
        """Forget the time since the last row: evaluation and saving are not training."""
        self._since, self._before = time.perf_counter(), dict(counts)

    def measure(self, counts: dict[str, int]) -> dict[str, float]:
        """Give ``tokens_per_second``, ``bases_per_second``, ``model_flops_utilisation`` (0 to 1) so far."""
        seconds = max(time.perf_counter() - self._since, 1e-9)
        tokens, bases = (counts[name] - self._before[name] for name in ("tokens", "bases"))
        self.restart(counts)
        return {
            "tokens_per_second": tokens / seconds,
            "bases_per_second": bases / seconds,
            "model_flops_utilisation": tokens / seconds * self.flops_per_token / self.peak_flops,
        }


def training_flops_per_token(
    *,
    matrix_parameters: int,
    num_layers: int,
    hidden_size: int,
    length: int,
    head_parameters: int = 0,
    head_share: float = 1.0,
) -> float:
    """Count FLOPs of forward + backward for one token.

    Args:
        matrix_parameters: weights of all matrices that every token passes (no embeddings).
        num_layers: encoder layers.
        hidden_size: model width.
        length: tokens in a window (full attention).
        head_parameters: weights of the output head.
        head_share: share of the tokens for which the head is computed (the masked ones).
    """
    return 6.0 * (matrix_parameters + head_share * head_parameters) + 12.0 * num_layers * hidden_size * length


@cache
def measured_peak(device: torch.device, dtype: torch.dtype, *, size: int | None = None) -> float:
    """Measure FLOP/s of a square matrix product on this device, best of five; once in a process."""
    size = size or (8192 if device.type == "cuda" else 1024)
    left = torch.randn(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(5):
        _synchronise(device)
        start = time.perf_counter()
        left @ left
        _synchronise(device)
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
