"""The fixed protocol of a benchmark, one for each suite, and the settings of a run.

Every model, method and baseline of a run is trained and measured by the same protocol. A setting that is changed for
one run is recorded with its results and shown in the report.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from longstrand.benchmarks.probing.probe import ProbeSettings
from longstrand.config import StrictModel
from longstrand.data.labelled_files import Words
from longstrand.training.curriculum import MemoryTraining
from longstrand.training.methods import FinetuneMethod

LEARNING_RATES = {"full": 1e-4, "frozen": 2e-3, "lora": 1e-3, "ia3": 1e-2}
"""Learning rate of each method of fine-tuning; other adapters take that of LoRA. `rate_factors` search around it."""

PROBE = "probe"


class Protocol(StrictModel):
    """How every model, method and baseline of a run is trained, chosen and measured."""

    epochs: int = Field(5, gt=0, description="passes over the training rows, at most (fine-tuning)")
    batch_size: int = Field(32, gt=0, description="sequences of an optimizer step; never changed by lack of memory")
    micro_batch_size: int | None = Field(None, gt=0, description="sequences of a forward pass; halved if memory ends")
    learning_rate: float | None = Field(None, gt=0, description="one learning rate for all methods; default: by method")
    rate_factors: tuple[float, ...] = Field((1.0,), min_length=1, description="rates tried, chosen on validation rows")
    tune_on: Literal["every_seed", "first_seed"] = Field(
        "every_seed", description="which seeds try all rates; first_seed: the others take the rate that it chose"
    )
    patience: int = Field(3, ge=0, description="evaluations without improvement until a training stops; 0: never")
    pooling: Literal["cls", "mean", "max"] = Field("mean", description="vector of a sequence (fine-tuning)")
    strand: Literal["+", "both"] = Field(
        "+", description="both: train on random strands, predict both (all methods alike)"
    )
    predict_strand: Literal["+", "both"] | None = Field(
        None, description="what a fine-tuned model is read on, if not as in training (no other method is concerned)"
    )
    precision: Literal["fp32", "bf16"] = "fp32"
    max_tokens: int | None = Field(None, ge=4, description="longest input in tokens; default: what the model reads")
    memory: MemoryTraining | None = Field(
        None, description="fine-tuning with recurrent memory, as in 'longstrand finetune': rows of any length are read"
    )
    max_train_rows: int | None = Field(None, ge=4, description="at most this many training rows, chosen by seed")
    kmer: int = Field(6, ge=1, le=8, description="k of the k-mer regression")
    cnn_epochs: int = Field(25, gt=0, description="passes of the CNN baselines, at most")
    probe: ProbeSettings = Field(default_factory=lambda: ProbeSettings(folds=3, trials=15))
    resamples: int = Field(1000, ge=0, description="bootstrap resamples of intervals and paired tests")
    batch_tokens: int = Field(16_384, gt=0, description="tokens of a batch when predicting")

    @property
    def finetuned_strand(self) -> str:
        """Strands that the predictions of a fine-tuned model are averaged over."""
        return self.predict_strand or self.strand

    def rate_of(self, method: FinetuneMethod) -> float:
        """Return the learning rate of a method before it is multiplied by `rate_factors`."""
        return self.learning_rate or LEARNING_RATES.get(method.name, LEARNING_RATES["lora"])


PROTOCOLS: dict[str, dict[str, Any]] = tomllib.loads(Path(__file__).with_name("protocols.toml").read_text("utf-8"))
"""What differs from the defaults of `Protocol`, by suite; a suite that is not here has the defaults."""


def protocol_of(suite: str, overrides: Mapping[str, Any]) -> Protocol:
    """Give the protocol of a suite with the overrides of a run (nested settings by dots are resolved already)."""
    return Protocol.model_validate({**PROTOCOLS.get(suite, {}), **overrides})


class BenchmarkConfig(StrictModel):
    """A complete benchmark run."""

    output: Path = Field(description="run folder; the same command goes on where it stopped")
    tasks: Path | None = Field(None, description="folder of tasks made by 'longstrand benchmark build'")
    data: Path | None = Field(None, description="your own folder of CSV, TSV, Parquet or BED files, or signal tracks")
    only: Words = Field((), description="of the tasks only these ids")
    models: tuple[Path, ...] = Field((), description="model folders")
    methods: tuple[FinetuneMethod | Literal["probe"], ...] = Field(
        ("full", "lora", "frozen", "probe"),  # type: ignore[arg-type]
        description="full, lora, ia3, frozen, probe, ...",
    )
    baselines: Words = Field(("all",), description="all, none, or names of baselines")
    random_init: bool = Field(True, description="also the same encoder without pre-training, fine-tuned and probed")
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="each model, method and task is run with each")
    fewshot: tuple[int, ...] = Field((), description="also with this many training rows, nested subsets by seed")
    protocol: dict[str, Any] = Field(default_factory=dict, description="settings that differ from the suite's protocol")
    build_options: dict[str, str] = Field(default_factory=dict, description="options of the builder of your own data")
    strict: bool = Field(False, description="refuse data whose splits leak")
    keep_models: bool = Field(False, description="keep the weights of every fine-tuned model")
    device: str = Field("auto", description="auto, cpu, cuda, mps")
    threads: int | None = Field(None, gt=0, description="CPU threads")

    @field_validator("methods", mode="before")
    @classmethod
    def _resolve_methods(cls, value: Any) -> Any:
        values = value if isinstance(value, list | tuple) else (value,)
        return tuple(item if item == PROBE else FinetuneMethod.model_validate(item) for item in values)

    @field_validator("build_options", mode="before")
    @classmethod
    def _as_words(cls, value: Any) -> Any:
        """Take ``piece_bases=500`` and YAML lists as the words that the builder reads."""
        if not isinstance(value, dict):
            return value
        words = {True: "yes", False: "no"}
        return {
            name: ",".join(map(str, item)) if isinstance(item, list | tuple) else words[item] if isinstance(item, bool)
            else str(item)
            for name, item in value.items()
        }  # fmt: skip

    @field_validator("protocol")
    @classmethod
    def _check_protocol(cls, value: dict[str, Any]) -> dict[str, Any]:
        Protocol.model_validate(value)
        return value
