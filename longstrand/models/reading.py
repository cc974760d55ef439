"""The reading record: how a model was shown its input, stored beside its weights and obeyed by every later reader.

It is the entry ``reading`` of ``longstrand.json``. Training writes it; `predict`, `evaluate`, `embed`, adapters,
``convert`` and the Auto classes read it. Who reads otherwise says so (`contradictions`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from longstrand.config import StrictModel, build
from longstrand.models.tensors import read_record

KEY = "reading"


class Reading(StrictModel):
    """How a model was trained and measured; a field that is None (or at its default) was never decided."""

    max_tokens: int | None = Field(None, ge=1, description="longest input in tokens, special ones included")
    longest_bases: int | None = Field(None, ge=1, description="bases of the longest training sequence that was read")
    window: int | None = Field(None, ge=1, description="bases around the middle of each interval")
    strand: Literal["+", "-", "both"] = Field("+", description="strands that measured predictions were averaged over")
    directed: bool = Field(False, description="labels have a direction, so the reverse complement is no second opinion")
    exact_text: bool = Field(False, description="text goes to the tokenizer as it is, lower case and all")
    pair: bool = Field(False, description="each row is two sequences")
    truncate: bool = Field(False, description="sequences that are too long were cut on the right")
    class_names: tuple[str, ...] | None = Field(None, description="names of the outputs, in their order")
    temperature: float | None = Field(
        None, gt=0, description="what logits are divided by before they are probabilities"
    )


def read_reading(folder: Path) -> Reading | None:
    """Read the record of a checkpoint folder; None if it has none.

    Raises:
        ConfigError: the record has unknown keys or wrong values.
    """
    found: dict[str, Any] | None = read_record(Path(folder)).get(KEY)
    return None if found is None else build(Reading, found, f"{folder}: reading record")


def contradictions(reading: Reading, **wanted: Any) -> list[str]:
    """Name what is read otherwise than in training: ``strand 'both' (the model was measured with '+')``.

    Args:
        reading: the model's record.
        **wanted: fields of `Reading` as they will be used; None is not compared.
    """
    known = reading.model_dump()
    return [
        f"{name} {value!r} (the model was measured with {known[name]!r})"
        for name, value in wanted.items()
        if value is not None and known[name] is not None and value != known[name]
    ]
