"""bf16 only where the processor computes in it.

On a processor without bf16 units, PyTorch's bf16 matrix products are emulated, 7 to 30 times slower than float32 ones.
Autocast asks for "at least bf16"; there float32 is both faster and more precise, so our models take it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar

import torch

logger = logging.getLogger(__name__)

Forward = TypeVar("Forward", bound=Callable[..., Any])


@lru_cache(maxsize=1)
def cpu_has_bf16() -> bool:
    """Say whether this processor multiplies bf16 matrices in hardware (AVX512-BF16, AMX, or their ARM equals)."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def without_emulation(forward: Forward) -> Forward:
    """Run a model's forward in float32 where CPU autocast to a short type would be emulated; else change nothing."""

    @wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_autocast_enabled("cpu") or cpu_has_bf16():
            return forward(*args, **kwargs)
        _say_once()
        with torch.autocast("cpu", enabled=False):
            return forward(*args, **kwargs)

    return run  # type: ignore[return-value]


@lru_cache(maxsize=1)
def _say_once() -> None:
    logger.warning("this processor has no bf16 units: computing in float32, which is faster here and more precise")
