"""`longstrand plan`: find the model, predict memory and time, say what fits."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from longstrand.errors import UsageError, nearest
from longstrand.info.calibration import Rates
from longstrand.info.memory import Memory, predict_memory
from longstrand.info.speed import StepTime, predict_time
from longstrand.info.workload import Setting, Workload, make_workload
from longstrand.models.config import PRESETS, LongstrandConfig, preset
from longstrand.models.precision import cpu_has_bf16
from longstrand.models.published.to_ours import import_published
from longstrand.models.tensors import tensor_names
from longstrand.runtime import read_json

_GENA = {"vocab_size": 32_000, "hidden_dropout": 0.1, "attention_dropout": 0.1}
_PLAIN = {"positions": "learned", "norm": "post", "hidden_dropout": 0.1, "attention_dropout": 0.1}
_GATED = {"gated_mlp": True, "activation": "silu", "positions": "rotary", "type_vocab_size": 0, "vocab_size": 4107}
PUBLISHED: dict[str, dict[str, Any]] = {
    "bert": {**_PLAIN, "vocab_size": 32_000},
    "dnabert": {**_PLAIN, "vocab_size": 4101},
    "gena_bert": {**_GENA, "positions": "learned", "norm": "pre"},
    "bigbird": {**_GENA, "positions": "learned", "norm": "post", "max_position_embeddings": 4096,
                "attention": {"pattern": "block_sparse", "layout": "bigbird", "block_size": 64}},
    "dnabert2": {"vocab_size": 4096, "positions": "alibi", "norm": "post", "gated_mlp": True, "hidden_dropout": 0.1,
                 "attention_dropout": 0.0},
    "nt_v1": {"vocab_size": 4105, "hidden_size": 1280, "num_hidden_layers": 24, "num_attention_heads": 20,
              "intermediate_size": 5120, "positions": "learned", "max_position_embeddings": 1002,
              "type_vocab_size": 0, "hidden_dropout": 0.0, "attention_dropout": 0.0, "tie_word_embeddings": False},
    "nt_v2": {**_GATED, "hidden_size": 512, "num_attention_heads": 16, "intermediate_size": 2048,
              "hidden_dropout": 0.0, "attention_dropout": 0.0, "tie_word_embeddings": False},
    "moderngena": {"vocab_size": 32_000, "num_hidden_layers": 22, "intermediate_size": 1152, "gated_mlp": True,
                   "positions": "rotary", "rotary": {"theta": 160_000.0, "local_theta": 10_000.0},
                   "max_position_embeddings": 8192, "type_vocab_size": 0, "hidden_dropout": 0.0,
                   "attention_dropout": 0.0, "quirks": ["no_first_attention_norm"],
                   "biases": {"attention": False, "mlp_up": False, "mlp_down": False, "norm": False, "lm_dense": False},
                   "attention": {"pattern": "sliding", "window": 128, "global_every": 3}},
}  # fmt: skip
"""Families at the size of their best known checkpoint (12 layers of 768 unless said; nt_v1 500M, nt_v2 50M)."""

GPUS: dict[str, tuple[float, float, float]] = {
    "h200": (141, 67, 989), "h100": (80, 67, 989), "a100": (80, 19.5, 312), "a100-40": (40, 19.5, 312),
    "l40s": (48, 91, 362), "a10": (24, 31, 125), "l4": (24, 30, 121), "v100": (32, 15.7, 125), "t4": (16, 8.1, 65),
    "rtx4090": (24, 83, 165), "rtx3090": (24, 36, 71),
}  # fmt: skip
"""Memory in GB and peak of dense products in TFLOP/s, fp32 and bf16 (or fp16), from the makers' data sheets."""
GPU_EFFICIENCY = 0.4
"""Share of the peak that a step is taken to reach on a GPU; an assumption, not a measurement."""
USABLE = 0.9
"""Share of the memory that a run should fill."""


@dataclass(frozen=True)
class Plan:
    """What a run will need.

    Attributes:
        model: how the model was named.
        setting: what was asked.
        parameters: by part.
        memory: predicted bytes.
        seconds: predicted time of a step.
        tokens_per_second: throughput.
        device: cpu, or a GPU by name.
        available: bytes of memory of the device, or None if unknown.
        largest_batch: sequences that fit into `USABLE` of it; 0 = not even one.
        notes: how sure the numbers are.
    """

    model: str
    setting: Setting
    parameters: dict[str, int]
    memory: Memory
    seconds: float
    tokens_per_second: float
    device: str
    available: int | None
    largest_batch: int | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give everything as a plain dictionary."""
        return asdict(self)


def find_config(model: str, *, vocab_size: int = 4096) -> LongstrandConfig:
    """Find the configuration of a model folder, a preset or a published family; weights are not read.

    Raises:
        UsageError: there is no such folder and no such name.
    """
    folder = Path(model)
    for path in (folder, folder / "model"):
        if (path / "config.json").is_file():
            content = read_json(path / "config.json")
            if content.get("model_type") == LongstrandConfig.model_type:
                return LongstrandConfig.from_dict(content)
            shapes = tensor_names(path)
            tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
            return import_published(path, tensors=tensors).config
    if model in PRESETS:
        return preset(model, vocab_size=vocab_size, type_vocab_size=0)
    if model in PUBLISHED:
        return LongstrandConfig(**PUBLISHED[model], family=model)
    names = [*PRESETS, *PUBLISHED]
    raise UsageError(f"{model}: no model folder, preset or family{nearest(model, names)}; names: {', '.join(names)}.")


def with_attention(config: LongstrandConfig, pattern: str | None, length: int) -> LongstrandConfig:
    """Change the attention pattern, and let tables of computed positions reach the length."""
    changes: dict[str, Any] = {}
    if pattern is not None and pattern != config.attention.pattern:
        changes["attention"] = {"pattern": pattern}
        if config.rotary.local_theta and pattern != "sliding":
            changes["rotary"] = {**dict(config.rotary), "local_theta": None}
    if config.positions != "learned" and length > config.max_position_embeddings:
        changes["max_position_embeddings"] = length
    return config.replace(**changes) if changes else config


def make_plan(
    model: str, config: LongstrandConfig, setting: Setting, *, device: str = "cpu", rates: Rates | None = None
) -> Plan:
    """Predict what a run needs.

    Args:
        model: its name, for the record.
        config: its configuration.
        setting: what is asked.
        device: cpu, or a name in `GPUS`.
        rates: of this machine, for the CPU.

    Raises:
        UsageError: unknown device, or a length that the model cannot read.
    """
    if device != "cpu" and device not in GPUS:
        raise UsageError(f"unknown device '{device}'{nearest(device, GPUS)}; known: cpu, {', '.join(GPUS)}.")
    work = make_workload(config, setting)
    native = cpu_has_bf16() if device == "cpu" else True
    notes = []
    if device == "cpu":
        assert rates is not None
        seconds, available = _cpu_seconds(work, rates), available_memory()
        if setting.precision == "bf16" and not native:
            notes.append("this processor has no bf16 units: the model computes in fp32.")
    else:
        seconds, available = _gpu_seconds(work, device), int(GPUS[device][0] * 1e9)
        notes.append(f"time on {device} from its data sheet at {GPU_EFFICIENCY:.0%} of the peak; nothing was measured.")
    largest = None if available is None else largest_batch(work, int(USABLE * available), native_bf16=native)
    return Plan(
        model=model,
        setting=setting,
        parameters=work.parameters,
        memory=predict_memory(work, native_bf16=native),
        seconds=seconds,
        tokens_per_second=setting.tokens / seconds,
        device=device,
        available=available,
        largest_batch=largest,
        notes=tuple(notes),
    )


def _cpu_seconds(work: Workload, rates: Rates) -> float:
    time: StepTime = predict_time(work, rates)
    return time.total


def _gpu_seconds(work: Workload, device: str) -> float:
    """Divide the products of a step by a share of the card's peak."""
    config, setting = work.config, work.setting
    size, inner = config.hidden_size, config.intermediate_size
    tokens = work.tokens * work.segments
    linear = 2.0 * tokens * size * (4 * size + (3 if config.gated_mlp else 2) * inner)
    pairs = sum(kind.layers * kind.pairs for kind in work.attentions) * setting.batch * work.segments
    flops = config.num_hidden_layers * linear + 4.0 * size * pairs + 2.0 * work.num_labels * size * config.vocab_size
    passes = 1 if setting.mode == "infer" else 4 if work.recomputes else 3
    peak = GPUS[device][2 if setting.precision == "bf16" else 1] * 1e12
    return passes * flops / (GPU_EFFICIENCY * peak)


def largest_batch(work: Workload, limit: int, *, native_bf16: bool) -> int:
    """Find the most sequences of which a step stays below ``limit`` bytes; 0 if one is too many."""

    def fits(batch: int) -> bool:
        return predict_memory(work.with_batch(batch), native_bf16=native_bf16).peak <= limit

    if not fits(1):
        return 0
    low, high = 1, 2
    while fits(high) and high < 1 << 20:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def available_memory() -> int | None:
    """Give the bytes that this process may use: of the machine, or of its container if that is less; None = unknown."""
    limits = []
    with suppress(OSError, ValueError):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = Path("/sys/fs/cgroup", name).read_text().strip()
        except OSError:
            continue
        limits += [int(text)] if text.isdigit() else []
    return min(limits) if limits else None
