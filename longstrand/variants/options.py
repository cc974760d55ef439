"""The options of scoring variants, written once for Python, the command line and the identity of outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from longstrand.config import split_words
from longstrand.errors import UsageError
from longstrand.genome.haplotypes import CallOptions
from longstrand.inference.strands import StrandPolicy

ScoreName = Literal[
    "llr", "llr_marginal", "pll", "pll_together", "pll_all", "pll_unmasked", "flank", "influence",
    "l1", "l2", "cosine", "dot", "flank_distance", "head",
]  # fmt: skip
Pooling = Literal["mean", "cls", "allele", "flat"]


class VariantOptions(CallOptions):
    """How variants are shown to a model and which scores they get."""

    NOT_CONTENT = frozenset({"background", "batch_tokens", "device", "threads", "part_rows", "mismatch"})

    scores: tuple[ScoreName, ...] = Field(
        (),
        description="llr, llr_marginal, pll, pll_together, pll_all, pll_unmasked, flank, influence, l1, l2, cosine, "
        "dot, flank_distance, head; by default llr, and flank for indels (masked LM), head (labels), or l2 and cosine",
    )
    outputs: tuple[str, ...] = Field((), description="heads: names or numbers of the outputs; by default all")
    window: int | None = Field(None, ge=1, description="bases shown; default: as in training, or what the model reads")
    windows: Literal["centred", "grid"] = Field(
        "centred", description="around each variant, or a fixed grid that neighbours share (faster)"
    )
    step: int | None = Field(
        None, ge=1, description="grid: bases from window to window; default: half a window; k nearly centres windows"
    )
    strand: StrandPolicy | None = Field(
        None, description="+, - or both (mean of the scores; heads: of the logits); default: both, heads as in training"
    )
    frames: bool = Field(False, description="k-mers: average llr over the k places that a base can have in its token")
    leftovers: bool = Field(False, description="k-mers: keep the single letters that are left over at the window's end")
    pooling: Pooling = Field("mean", description="l1, l2, cosine, dot: mean over tokens, cls, allele or flat")
    layer: int = Field(-1, description="l1, l2, cosine, dot: 0 = embedding output, -1 = last layer")
    shared_masks: bool = Field(
        False, description="llr on a grid: mask several variants in one pass; faster, other numbers (drift is printed)"
    )
    sample: str | None = Field(
        None,
        description="score each allele on the haplotypes of this sample of the VCF that carry it, among their other "
        "alleles; one set of scores for each haplotype (_H1, _H2)",
    )
    prefix: str = Field("LS_", pattern="[A-Za-z_][0-9A-Za-z_.]*", description="what names of INFO fields begin with")
    background: Path | None = Field(None, description="table of 'variants calibrate', which gives percentiles by kind")
    split: bool = Field(False, description="VCF: one line for each ALT")
    batch_tokens: int = Field(8192, ge=1, description="most tokens in a batch; lower it if memory runs out")
    device: str | None = Field(None, description="auto (a GPU if there is one), cpu, cuda, cuda:1, mps")
    threads: int | None = Field(None, ge=1, description="processor threads; by default as many as there are free cores")
    part_rows: int = Field(4096, ge=1, description="records between two safe points of the output")

    _split = field_validator("scores", "outputs", mode="before")(split_words)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.step is not None and self.windows != "grid":
            raise UsageError("step is between the windows of a grid: choose windows 'grid'.")
        if self.shared_masks and (self.windows != "grid" or self.frames):
            raise UsageError("shared masks need windows that variants share: windows 'grid', without frames.")
        if self.sample is None and (self.unphased, self.missing) != ("refuse", "ref"):
            raise UsageError("unphased and missing are about the calls of a sample; name it (--sample).")
        return self
