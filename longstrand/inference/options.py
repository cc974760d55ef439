"""The options of inference, written once: Python verbs, command line and the identity of resumable outputs use them.

`PredictOptions` says how a model reads a sequence and what it gives back, `FileOptions` adds how a file is read and
written, `TrackOptions` how whole contigs are. The description of a field is its help text on the command line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from longstrand.config import StrictModel, split_words
from longstrand.errors import UsageError
from longstrand.inference.strands import PUBLISHED_VIEWS, STRANDS, StrandPolicy, View

Output = Literal["logits", "probabilities", "embeddings"]
SequencePooling = Literal["mean", "mean_all", "max", "cls"]
Pooling = Literal["mean", "mean_all", "max", "cls", "tokens", "bases"]


class PredictOptions(StrictModel):
    """How to read sequences and what to give back."""

    NOT_CONTENT = frozenset({"batch_tokens", "pack", "device", "threads", "part_rows"})

    output: Output = Field("logits", description="probabilities, logits of the head, or embeddings of the encoder")
    pooling: Pooling = Field(
        "mean", description="embeddings: mean or max over tokens, mean_all (special ones too), cls, bases or tokens"
    )
    layer: int = Field(-1, description="embeddings: 0 = embedding output, 1 = first layer, -1 = last (normalised)")
    layers: tuple[int, ...] = Field((), description="embeddings: several layers, one after the other")
    poolings: tuple[SequencePooling, ...] = Field((), description="embeddings: several poolings for each layer")
    strand: StrandPolicy = Field("+", description="sequences as given (+), reverse complement (-), or average (both)")
    shifts: tuple[int, ...] = Field(
        (0,), min_length=1, description="average over windows moved by so many bases: 0,1,-1"
    )
    tta: bool = Field(False, description="average over the eight strands and shifts that GENA-LM published")
    truncate: bool = Field(False, description="cut sequences that are too long on the right, instead of refusing them")
    max_tokens: int | None = Field(
        None, ge=1, description="longest input with special tokens; by default as in training"
    )
    exact_text: bool = Field(False, description="no upper case and no N for unknown letters before the tokenizer")
    temperature: float | None = Field(
        None, gt=0, description="probabilities: what logits are divided by first; by default as calibrated"
    )
    scale: Literal["natural", "trained"] = Field(
        "natural", description="signal tracks: numbers as measured, or as the model was trained on them"
    )
    precision: Literal["fp32", "bf16"] = Field("fp32", description="fp32, or bf16 (faster on GPUs, 2 to 3 digits)")
    batch_tokens: int = Field(8192, ge=1, description="most tokens in a batch; lower it if memory runs out")
    pack: bool | None = Field(None, description="put rows one after the other, without padding; by default on a CPU")
    device: str | None = Field(None, description="auto (a GPU if there is one), cpu, cuda, cuda:1, mps")
    threads: int | None = Field(None, ge=1, description="processor threads; by default as many as there are free cores")

    _split = field_validator("shifts", "layers", "contigs", "columns", mode="before", check_fields=False)(split_words)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.tta and self.model_fields_set & {"strand", "shifts"}:
            raise UsageError("tta names strands and shifts itself; leave strand and shifts away.")
        if self.output == "embeddings" and (unused := self.model_fields_set & {"temperature", "scale"}):
            raise UsageError(f"{' and '.join(sorted(unused))}: for predictions, not for embeddings; leave it out.")
        if self.pooling == "tokens" and len(self.views) > 1:
            raise UsageError("the tokens of the two strands differ; with strand 'both' use pooling 'bases'.")
        return self

    @property
    def views(self) -> tuple[View, ...]:
        """How every sequence is read: strands and shifts, over which answers are averaged."""
        every = tuple((strand, shift) for shift in self.shifts for strand in STRANDS[self.strand])
        return PUBLISHED_VIEWS if self.tta else every


class FileOptions(PredictOptions):
    """How a file is read, predicted and written."""

    window: int | None = Field(
        None, ge=1, description="bases around the middle of each interval; of contigs, at a time"
    )
    sequence_column: str = Field("sequence", description="column with the sequences")
    pair_column: str | None = Field(None, description="column with second sequences, for models of pairs")
    name_column: str | None = Field(None, description="column with row names; by default 'name' or 'id'")
    part_rows: int | None = Field(None, ge=1, description="rows between two safe points of the output")


class RowSource(StrictModel):
    """Where labelled rows to measure on lie."""

    genome: str | Path | None = Field(None, description="genome of the intervals (FASTA)")
    window: int | None = Field(None, description="bases around the middle of each interval; by default as in training")
    sequence_column: str = Field("sequence", description="column with the sequences")
    label_column: str | None = Field(None, description="column(s) with the labels, with commas")
    pair_column: str | None = Field(None, description="column with second sequences, for models of pairs")
    group_column: str | None = Field(None, description="measure the rows of each value of this column, too")


class TrackOptions(PredictOptions):
    """How contigs or regions of a genome are read and what is written of them."""

    strand: Literal["+", "-", "both", "separate"] = Field(  # type: ignore[assignment]
        "+", description="sequences as given (+), reverse complement (-), average (both), or (tracks) separate"
    )
    contigs: tuple[str, ...] = Field((), description="tracks: 'all' or names with commas")
    regions: str | None = Field(
        None,
        description="tracks: only these intervals: a file (BED, or chrom,start,end), or chr1:1001-2000, counted from "
        "1, both ends included; several with commas",
    )
    columns: tuple[str, ...] = Field((), description="tracks: outputs to write, with commas; by default all")
    bin_size: int | None = Field(None, ge=1, description="tracks: bases of a bin; by default one, or the model's bin")
    reduce: Literal["mean", "sum"] = Field("mean", description="tracks: a bin gets the mean or the sum of its bases")
    window: int | None = Field(None, ge=1, description="bases read at a time; by default all, or what the model reads")
    step: int | None = Field(
        None,
        ge=1,
        description="tracks: bases from window to window; by default three quarters, half if they are blended",
    )
    blend: Literal["crop", "average", "hann"] = Field(
        "crop", description="tracks: where windows overlap, the one whose middle is nearer, or a (weighted) average"
    )
    threshold: float | None = Field(
        None, description="folder of tracks: also write stretches at or above this value as BED"
    )
    gap: int = Field(
        1000, ge=0, description="tracks: runs of so many N are left out and end memory; 0: read everything"
    )

    @model_validator(mode="after")
    def _no_gaps(self) -> Self:
        if self.window is not None and self.step is not None and self.step > self.window:
            raise UsageError(f"a step of {self.step:,} bases leaves gaps between windows of {self.window:,}.")
        return self

    @property
    def views(self) -> tuple[View, ...]:
        """How every window is read; ``separate`` reads what ``both`` reads."""
        if self.strand != "separate":
            return super().views
        return tuple((strand, shift) for shift in self.shifts for strand in STRANDS["both"])


OF_A_LOGO = (
    "contigs", "regions", "window", "step", "blend", "gap", "strand", "max_tokens", "batch_tokens", "device", "threads",
)  # fmt: skip
"""Options of tracks that have a meaning where each base is masked in turn."""
