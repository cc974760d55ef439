"""Settings of a fine-tuning run: the whole text of ``longstrand finetune --config run.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from longstrand.config import StrictModel
from longstrand.data.labelled import LabelColumns, Words
from longstrand.training.curriculum import MemoryTraining
from longstrand.training.methods import Way


class DataSettings(StrictModel):
    """Which labelled sequences are read, and how they are split."""

    train: Path = Field(
        description="CSV, TSV or Parquet table (sequence,label), or intervals (BED, or chrom,start,end,label)"
    )
    valid: Path | None = Field(None, description="validation rows, in the same form; else they are split off")
    test: Path | None = Field(None, description="test rows, in the same form; else they are split off")
    columns: LabelColumns = Field(default_factory=LabelColumns)
    problem: Literal["single_label", "multi_label", "regression", "token"] | None = Field(
        None, description="kind of problem; inferred from the training table if absent"
    )
    class_names: Words | None = Field(None, description="names of the classes or outputs, in order")
    class_names_file: Path | None = Field(None, description="file with them: one a line, or a table label,label_name")
    fasta: Path | None = Field(None, description="genome of the intervals")
    window: int | None = Field(
        None, ge=1, description="bases around the centre of each interval; default: the interval"
    )
    exact_text: bool = Field(
        False, description="give sequences to the tokenizer as they are; default: upper case, unknown letters as N"
    )
    negative_ratio: int = Field(0, ge=0, description="GC- and length-matched random negatives for each interval")
    valid_chroms: Words = Field((), description="chromosomes for validation")
    test_chroms: Words = Field((), description="chromosomes for the test")
    valid_fraction: float = Field(0.1, gt=0, lt=1, description="share split off for validation, if nothing else says")
    test_fraction: float = Field(0.1, ge=0, lt=1, description="share split off for the test, if nothing else says")
    split_seed: int = Field(0, ge=0, description="seed of the split, apart from the training seed")
    max_train_rows: int | None = Field(
        None, ge=2, description="use at most this many training rows, chosen by split_seed"
    )
    piece_bases: int | None = Field(
        None, ge=2, description="token problems: cut longer sequences into pieces of this size"
    )

    bin_bases: int | None = Field(
        None, ge=1, description="labels are numbers for bins of this many bases, joined by ';' in a column a target"
    )
    bin_loss: Literal["counts", "squared"] = Field("counts", description="bins: Poisson loss, or squared error")

    @model_validator(mode="after")
    def _check(self) -> DataSettings:
        if self.window is not None and self.fasta is None:
            raise ValueError("window needs fasta, the genome that the intervals lie on")
        if self.class_names is not None and self.class_names_file is not None:
            raise ValueError("give class_names or class_names_file, not both")
        if self.valid_fraction + self.test_fraction >= 1:
            raise ValueError("valid_fraction and test_fraction leave nothing to train on")
        return self


class ModelSettings(StrictModel):
    """The model that is fine-tuned."""

    path: Path = Field(description="model folder (or hub id) with its tokenizer")
    init: Literal["pretrained", "random"] = Field(
        "pretrained", description="random: same architecture without the learned weights, as the control"
    )
    pooling: Literal["cls", "mean", "max"] = Field("mean", description="vector of a sequence")
    form: Literal["linear", "pooler"] = Field("linear", description="pooler: dense + tanh before the output")
    dropout: float | None = Field(None, ge=0, lt=1, description="dropout during fine-tuning; default: the model's own")


class TrainSettings(StrictModel):
    """Optimisation, evaluation during training, and saving."""

    epochs: int = Field(5, gt=0, description="passes over the training rows, at most")
    batch_size: int = Field(32, gt=0, description="sequences per optimizer step, over all devices")
    micro_batch_size: int | None = Field(None, gt=0, description="sequences per forward pass and device")
    learning_rate: float = Field(1e-4, gt=0)
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_fraction: float = Field(0.1, ge=0, lt=1, description="share of all steps")
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(1.0, ge=0, description="gradient clipping; 0: off")
    class_weights: Literal["none", "balanced"] = Field("none", description="balanced: rare classes count as much")
    strand: Literal["+", "both"] = Field("+", description="both: each sequence is read from a random strand")
    max_tokens: int | None = Field(None, ge=4, description="longest input in tokens; default: what the model can read")
    on_long: Literal["truncate", "refuse"] = Field("truncate", description="what happens to longer sequences")
    metric: str | None = Field(None, description="chooses the best checkpoint; default by problem, 'loss' is allowed")
    evaluations_per_epoch: int = Field(1, gt=0)
    patience: int = Field(3, ge=0, description="stop after this many evaluations without improvement; 0: never")
    precision: Literal["fp32", "bf16"] = "fp32"
    pack: bool = Field(False, description="rows one after the other, not padded: same results; for CPUs")
    seed: int = Field(0, ge=0, description="of the new weights, the order of rows and dropout")
    device: str = Field("auto", description="auto, cpu, cuda, mps")
    threads: int | None = Field(None, gt=0, description="CPU threads")
    num_workers: int = Field(0, ge=0, description="processes that make batches")
    log_every: int = Field(20, gt=0)
    tensorboard: bool = True

    @model_validator(mode="after")
    def _check(self) -> TrainSettings:
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError(f"batch_size {self.batch_size} is no multiple of micro_batch_size {self.micro_batch_size}")
        return self


class EvaluationSettings(StrictModel):
    """How the best model is measured, once, at the end."""

    strand: Literal["+", "both"] = Field("+", description="both: predictions of the two strands are averaged")
    resamples: int = Field(1000, ge=0, description="bootstrap resamples of the 95 % intervals; 0: none")
    baselines: bool = Field(True, description="also fit k-mer regression and the majority on the same rows")
    kmer: int = Field(6, ge=1, le=8, description="k of the k-mer regression")
    predictions: Literal["csv", "parquet"] = Field("csv", description="format of the predictions of the test rows")
    batch_tokens: int = Field(16_384, gt=0, description="most tokens in a batch of the evaluation")


class FinetuneConfig(StrictModel):
    """A complete fine-tuning run."""

    output: Path = Field(description="run folder; the same command resumes it")
    model: ModelSettings
    data: DataSettings
    way: Way = Field(default_factory=Way, description="full, frozen, lora, ia3, or {peft: NAME, ...}")
    memory: MemoryTraining | None = Field(
        None, description="recurrent memory: rows of any length are read in segments; see the model's own settings"
    )
    training: TrainSettings = Field(default_factory=TrainSettings)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)

    @field_validator("model", mode="before")
    @classmethod
    def _accept_model_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str | Path) else value

    @field_validator("data", mode="before")
    @classmethod
    def _accept_table_path(cls, value: Any) -> Any:
        return {"train": value} if isinstance(value, str | Path) else value

    @model_validator(mode="after")
    def _check(self) -> FinetuneConfig:
        if self.way.is_adapter and self.model.init == "random":
            raise ValueError("an adapter on random weights could not be loaded again; use way full or frozen")
        if self.memory is not None and self.training.pack:
            raise ValueError("memory reads rows in segments, which cannot be packed; set training.pack=false")
        return self
