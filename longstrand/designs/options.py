"""The options of design, written once for Python, the command line and the identity of outputs."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from longstrand.config import split_words
from longstrand.errors import UsageError
from longstrand.explain.options import ReadOptions, read_range
from longstrand.genome.sequence import IUPAC

Strategy = Literal["greedy", "beam", "evolve", "gradient", "lm"]
USED_BY = {
    "width": ("beam", "evolve", "gradient", "lm"), "patience": ("beam", "evolve", "gradient", "lm"),
    "temperature": ("gradient", "lm"),
}  # fmt: skip
ROUNDS = {"greedy": 50, "beam": 30, "evolve": 50, "gradient": 20, "lm": 100}
WIDTHS = {"greedy": 1, "beam": 8, "evolve": 64, "gradient": 16, "lm": 32}
ENZYMES = {
    "BAMHI": "GGATCC", "BBSI": "GAAGAC", "BSAI": "GGTCTC", "BSMBI": "CGTCTC", "ECORI": "GAATTC", "ECORV": "GATATC",
    "HINDIII": "AAGCTT", "KPNI": "GGTACC", "NDEI": "CATATG", "NHEI": "GCTAGC", "NOTI": "GCGGCCGC", "PSTI": "CTGCAG",
    "SACI": "GAGCTC", "SALI": "GTCGAC", "SAPI": "GCTCTTC", "SPEI": "ACTAGT", "XBAI": "TCTAGA", "XHOI": "CTCGAG",
}  # fmt: skip
"""Restriction sites that may be named (Roberts et al., REBASE)."""


class DesignOptions(ReadOptions):
    """What is wanted, what must hold, and how it is searched."""

    strategy: Strategy = Field(
        "greedy",
        description="greedy (best single substitution, again and again), beam, evolve, gradient (single-base "
        "vocabularies), or lm (masked bases refilled by a language model)",
    )
    target: str | int | None = Field(
        None, description="name or number of the output to raise; by default the only one, or of two classes the second"
    )
    against: tuple[str | int, ...] = Field(
        (), description="outputs, with commas, whose highest is subtracted: raise one but not the others"
    )
    hold: tuple[str | int, ...] = Field((), description="outputs, with commas, that are to stay as they are")
    hold_weight: float = Field(1.0, gt=0, description="cost of a change of 1 in a held output")
    lower: bool = Field(False, description="lower the output instead of raising it")
    reach: float | None = Field(
        None, allow_inf_nan=False, description="come as close to this value as possible, and stop there"
    )
    max_edits: int | None = Field(None, ge=1, description="most bases that differ from the start")
    fixed: tuple[tuple[int, int], ...] = Field(
        (), description="bases that stay, START-END with commas (from 1, both included)"
    )
    gc: tuple[float, float] | None = Field(None, description="share of G and C of the result, LOW-HIGH, as 0.35-0.6")
    forbidden: tuple[str, ...] = Field(
        (), description="words (IUPAC letters) or enzymes, with commas, that neither strand of the result may hold"
    )
    motifs: tuple[str, ...] = Field((), description="words, with commas, that the result must hold on either strand")
    width: int | None = Field(
        None, ge=2, description="beam: sequences kept (8); evolve: population (64); lm: chains (32); gradient: "
        "samples a step (16)",
    )  # fmt: skip
    rounds: int | None = Field(
        None, ge=1, description="most rounds: greedy 50, beam 30, evolve 50, gradient 20 (of 10 steps), lm 100"
    )
    patience: int = Field(10, ge=1, description="rounds without gain after which all but greedy stop")
    keep: int = Field(5, ge=1, description="best designs of each start that are given back; greedy has one")
    temperature: float = Field(
        1.0, gt=0, description="gradient: of the samples (larger is softer); lm: loss in the score that is accepted "
        "with probability 1/e at first; it falls to a tenth",
    )  # fmt: skip
    _split = field_validator("against", "hold", "forbidden", "motifs", mode="before")(split_words)

    @field_validator("fixed", mode="before")
    @classmethod
    def _read_fixed(cls, value: Any) -> Any:
        spans = tuple(read_range(one) if isinstance(one, str) else tuple(one) for one in split_words(value))
        for start, end in spans:
            if not 0 <= start < end:
                raise UsageError(
                    f"fixed bases ({start}, {end}) are none; in Python they count from 0, without the end."
                )
        return spans

    @field_validator("gc", mode="before")
    @classmethod
    def _read_gc(cls, value: Any) -> Any:
        return tuple(map(float, value.split("-"))) if isinstance(value, str) and "-" in value else split_words(value)

    @field_validator("forbidden", "motifs", mode="after")
    @classmethod
    def _read_words(cls, value: tuple[str, ...], info: Any) -> tuple[str, ...]:
        known = IUPAC if info.field_name == "forbidden" else "ACGT"
        words = tuple(ENZYMES.get(word.upper(), word.upper().replace("U", "T")) for word in value)
        for word in words:
            if not word or not set(word) <= set(known):
                raise UsageError(f"'{word}' is no word of {'IUPAC letters' if known is IUPAC else 'A, C, G and T'}.")
        return words

    @model_validator(mode="after")
    def _agree(self) -> Self:
        self.refuse_unused(USED_BY, "strategy", self.strategy)
        if self.strategy == "greedy" and "keep" in self.model_fields_set and self.keep > 1:
            raise UsageError("greedy has one design of each start; leave keep out, or take beam.")
        if self.gc is not None and not 0 <= self.gc[0] <= self.gc[1] <= 1:
            raise UsageError(f"gc {self.gc[0]:g}-{self.gc[1]:g} is no range of shares; write 0.35-0.6.")
        if self.lower and self.reach is not None:
            raise UsageError("an output is lowered or reaches a value; give --lower or --reach, not both.")
        if "hold_weight" in self.model_fields_set and not self.hold:
            raise UsageError("hold_weight is for outputs that are held (--hold).")
        return self

    @property
    def most_rounds(self) -> int:
        """Return after how many rounds a search ends."""
        return self.rounds or ROUNDS[self.strategy]

    @property
    def size(self) -> int:
        """Return how many sequences a search holds at a time."""
        return self.width or WIDTHS[self.strategy]
