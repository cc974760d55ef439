"""Methods of fine-tuning: all weights, an adapter of PEFT, or a frozen encoder with a trained head.

One setting, ``method``, of a fine-tuning run: ``full``, ``frozen``, the name of an adapter (``lora``, ``ia3``, ...), or
``{peft: NAME, SETTING: VALUE, ...}`` with the settings of that adapter in PEFT.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from longstrand.config import StrictModel
from longstrand.runtime import peak_resident

PLAIN = ("full", "frozen")
BYTES_OF_A_WEIGHT = 4


class FinetuneMethod(StrictModel):
    """Which weights are trained."""

    name: str = Field(
        "full", description="full, frozen (head and memory only), or an adapter: lora, ia3, any other of PEFT"
    )
    settings: dict[str, Any] = Field(default_factory=dict, description="settings of the adapter, by PEFT's names")

    @model_validator(mode="before")
    @classmethod
    def _accept_short_forms(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and "peft" in value:
            return {"name": value["peft"], "settings": {key: item for key, item in value.items() if key != "peft"}}
        return value

    @field_validator("name")
    @classmethod
    def _lower_case(cls, value: str) -> str:
        return value.lower()

    @model_validator(mode="after")
    def _check(self) -> FinetuneMethod:
        if self.name in PLAIN and self.settings:
            raise ValueError(f"the method '{self.name}' has no settings, got {', '.join(self.settings)}")
        return self

    @property
    def is_adapter(self) -> bool:
        """Whether PEFT is needed."""
        return self.name not in PLAIN


def check_method(method: FinetuneMethod) -> None:
    """Refuse an adapter that does not exist or has other settings, before any data is read.

    Raises:
        UsageError: see `longstrand.models.adapters.adapter_config`.
    """
    if method.is_adapter:
        from longstrand.models.adapters import adapter_config

        adapter_config(method.name, method.settings)


def apply_method(model: Any, method: FinetuneMethod, *, base: str | Path) -> Any:
    """Make exactly the weights of a method trainable.

    Args:
        model: with a sequence or token head.
        method: which.
        base: folder that the model came from.

    Returns:
        The model, or a PEFT model around it.
    """
    if method.is_adapter:
        from longstrand.models.adapters import add_adapter

        return add_adapter(model, method.name, method.settings, base=base)
    if method.name == "frozen":
        for name, parameter in model.encoder.named_parameters():
            parameter.requires_grad_(name.startswith("memory."))  # a fresh one says nothing without training
    return model


def weights_of(model: Any) -> dict[str, int]:
    """Count the weights: ``parameters``, ``trained_parameters``, and ``storage_bytes`` of the trained ones."""
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    return {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "trained_parameters": trained,
        "storage_bytes": trained * BYTES_OF_A_WEIGHT,
    }


@contextmanager
def measured_cost(device: str = "cpu") -> Iterator[dict[str, Any]]:
    """Measure what happens inside: ``seconds``, ``peak_memory_bytes`` and ``peak_memory_of``.

    On a GPU it is the memory that PyTorch allocated there. On the CPU it is the largest memory of the process, data and
    libraries included; where the system cannot reset that mark (other than Linux), of the process so far.
    """
    import torch

    cost: dict[str, Any] = {}
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    else:
        _reset_peak()
    start = time.perf_counter()
    try:
        yield cost
    finally:
        cost["seconds"] = time.perf_counter() - start
        cost["peak_memory_bytes"] = torch.cuda.max_memory_allocated(device) if on_gpu else peak_resident()
        cost["peak_memory_of"] = "gpu" if on_gpu else "process"


def _reset_peak() -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
