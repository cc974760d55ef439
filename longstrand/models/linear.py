"""The linear layer of the encoder: the same numbers as `torch.nn.Linear`, through the faster library on this processor.

PyTorch multiplies float32 matrices on x86 with Intel's MKL, which leaves a tenth of an AMD processor unused; oneDNN,
which PyTorch ships as well, does not (``perf/attention.py`` measures both). Results differ by rounding only.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longstrand.runtime import processor

_WORTH = 1 << 24
"""Multiplications from which oneDNN is asked; below, its set-up for a new shape costs more than it gains."""


class Linear(nn.Linear):
    """`torch.nn.Linear`, with oneDNN products in float32 on processors by AMD; same parameters, names and gradients."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        if not _suits(input, self.weight):
            return F.linear(input, self.weight, self.bias)
        if torch.is_grad_enabled():
            product: Tensor = _Product.apply(input, self.weight, self.bias)
            return product
        return _multiply(input, self.weight, self.bias)


@lru_cache(maxsize=1)
def _prefers_onednn() -> bool:
    available = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return available and "AMD" in processor()


def _suits(states: Tensor, weight: Tensor) -> bool:
    """Say whether oneDNN may be asked: plain float32 on the CPU, nothing that records or rewrites the call, large."""
    return (
        states.device.type == "cpu"
        and states.dtype == weight.dtype == torch.float32
        and states.numel() * weight.shape[0] >= _WORTH
        and type(states) in (Tensor, nn.Parameter)
        and type(weight) in (Tensor, nn.Parameter)
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined]
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
        and bool(torch.backends.mkldnn.enabled)
        and _prefers_onednn()
    )


def _multiply(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
    return result


class _Product(torch.autograd.Function):
    """states @ weight.T + bias."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(states, weight)
        return _multiply(states, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        states, weight = ctx.saved_tensors
        for_states, for_weight, for_bias = ctx.needs_input_grad
        flat = gradient.flatten(0, -2)
        return (
            _Product.apply(gradient, weight.t(), None) if for_states else None,
            flat.t() @ states.flatten(0, -2) if for_weight else None,  # MKL is the faster one here
            flat.sum(0) if for_bias else None,
        )
