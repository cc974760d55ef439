"""The options of attribution, written once for Python, the command line and the identity of outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from longstrand.config import StrictModel, build, split_words
from longstrand.errors import UsageError
from longstrand.explain.gradient import LONG_STEPS, LONG_TOKENS, MOST_STEPS, STEPS, TOLERANCE
from longstrand.inference.options import FileOptions
from longstrand.inference.strands import StrandPolicy

Method = Literal["ig", "gradient", "occlusion", "ism", "deletion", "insertion", "block"]
PATHS = ("ig", "gradient")
CHANGES = ("ism", "deletion", "insertion", "block")
USED_BY = {
    "baseline": PATHS, "steps": ("ig",), "most_steps": ("ig",), "tolerance": ("ig",), "span": CHANGES,
    "width": ("block",), "keep_segmentation": ("ism",),
}  # fmt: skip


class ReadOptions(StrictModel):
    """How the sequences of a question about an output are read."""

    NOT_CONTENT = frozenset({"batch_tokens", "device", "threads", "part_rows", "most_minutes"})

    region: tuple[int, int] | None = Field(
        None, description="heads per token, base or bin: average over bases START-END (from 1, both included)"
    )
    strand: StrandPolicy | None = Field(None, description="+, - or both (mean); by default as in training")
    seed: int = Field(0, ge=0, description="of all that is drawn")
    window: int | None = Field(None, ge=1, description="bases around the middle of each interval")
    sequence_column: str = Field("sequence", description="column with the sequences")
    name_column: str | None = Field(None, description="column with row names; by default 'name' or 'id'")
    batch_tokens: int = Field(8192, ge=1, description="most tokens in a batch; lower it if memory runs out")
    device: str | None = Field(None, description="auto (a GPU if there is one), cpu, cuda, cuda:1, mps")
    threads: int | None = Field(None, ge=1, description="processor threads; by default as many as there are free cores")

    @field_validator("region", mode="before")
    @classmethod
    def _read_region(cls, value: Any) -> Any:
        return read_range(value) if isinstance(value, str) else value

    def refuse_unused(self, used_by: Mapping[str, Sequence[str]], kind: str, chosen: str) -> None:
        """Refuse options that are given and not used by what was chosen."""
        for name, users in used_by.items():
            if name in self.model_fields_set and chosen not in users:
                raise UsageError(f"{name} is for the {kind} {' or '.join(users)}, not for {chosen}.")

    def reading(self) -> FileOptions:
        """Return what says how a file is read."""
        names = self.model_fields_set & {"window", "sequence_column", "name_column"}
        return FileOptions.model_validate({name: getattr(self, name) for name in names})


def read_range(text: str) -> tuple[int, int]:
    """Read ``11-20``, which counts from 1, as 10 and 20.

    Raises:
        UsageError: it is no range.
    """
    start, _, end = text.strip().replace(",", "").partition("-")
    if not (start.isdigit() and end.isdigit() and 1 <= int(start) <= int(end)):
        raise UsageError(f"'{text}' is no START-END; write 11-20 (from 1, both included).")
    return int(start) - 1, int(end)


class AttributeOptions(ReadOptions):
    """What is explained and how."""

    method: Method = Field(
        "ig",
        description="ig (integrated gradients), gradient (x difference), occlusion, or a change of bases: ism (every "
        "substitution), deletion, insertion, block (shuffled)",
    )
    target: str | int | None = Field(
        None,
        description="name or number of an output; masked LM: unmasked, masked:POSITION or masked:POSITION:TOKEN (from "
        "1); by default the only one, or of two classes the second minus the first",
    )
    against: str | int | None = Field(None, description="output that is subtracted")
    baseline: tuple[str, ...] = Field(
        (),
        description="ig, gradient: mask, pad, n, zero_id, mean, shuffled or token:TEXT; several with commas: the first "
        "makes the map, the others are compared; by default mask,mean,shuffled",
    )
    span: int | None = Field(None, ge=1, description="changes: so many bases in the middle; by default all")
    width: int = Field(10, ge=2, description="block: bases")
    keep_segmentation: bool = Field(False, description="ism: leave out substitutions that move the borders of tokens")
    steps: int = Field(STEPS, ge=2, description="ig: points on the path at first")
    most_steps: int = Field(
        MOST_STEPS,
        ge=2,
        description="ig: points are added up to here while the gap is too large; by default "
        f"{LONG_STEPS} for sequences of more than {LONG_TOKENS:,} tokens",
    )
    tolerance: float = Field(TOLERANCE, gt=0, description="ig: largest completeness gap, as a share")
    check: int = Field(10, ge=0, description="sequences on which the trust page tests the maps; 0: no such page")
    track: Literal["bedgraph", "bigwig"] | None = Field(
        None, description="format of the track; by default bigwig, or bedgraph without the package pybigtools"
    )
    most_minutes: float = Field(30.0, gt=0, description="longer runs, as estimated from one batch, are not begun")
    part_rows: int = Field(64, ge=1, description="rows between two safe points of the output")

    _split = field_validator("baseline", mode="before")(split_words)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        self.refuse_unused(USED_BY, "method", self.method)
        return self

    def points(self, num_tokens: int) -> int:
        """Return the most points on the path of a sequence."""
        is_long = num_tokens > LONG_TOKENS and "most_steps" not in self.model_fields_set
        return max(self.steps, LONG_STEPS) if is_long else max(self.steps, self.most_steps)

    def of_method(self, method: str) -> Self:
        """Return a copy for another method, without the options that only this one uses."""
        kept = {name: getattr(self, name) for name in self.model_fields_set}
        kept = {name: value for name, value in kept.items() if method in USED_BY.get(name, (method,))}
        return build(type(self), {**kept, "method": method}, "options")
