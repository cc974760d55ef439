"""What a score means: its percentile among the scores of a background.

A background is a table of scored variants (Parquet) with the record of the run beside it, from
`longstrand.variants.calibrate`. It serves only files that are scored with the same weights, tokenizer, genome and
options. Percentiles are by kind of change (snv, mnv, insertion, deletion, delins): (number below + half the number
equal) / number of the background.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from longstrand.config import differences
from longstrand.errors import InputError, UsageError
from longstrand.genome.variants import KINDS, Kind, Variant
from longstrand.runtime import read_json

FEWEST = 50
"""Variants of a kind that a background needs for percentiles of that kind."""
NOT_COMPARED = frozenset(
    {"input", "part_rows", "kind", "prefix", "split", "background", "sample", "unphased", "missing"}
)


class Background:
    """The scores of a background, by kind of change.

    Attributes:
        few: kinds without percentiles.

    Raises:
        InputError: the table or its record is missing.
        UsageError: it was made with another model or other options, which are named.
    """

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        record = path.with_name(path.name + ".run.json")
        if not record.exists():
            raise InputError(f"{path}: no background of 'variants calibrate', which leaves {record.name} beside it.")
        made = read_json(record).get("settings", {})
        if other := differences(made, identity, leave_out=NOT_COMPARED):
            raise UsageError(f"{path}: a background of another model or other options ({'; '.join(other[:4])}).")
        table = pl.read_parquet(path)
        places = table.select("chrom", "pos", "ref", "alt").iter_rows()
        kinds = np.array([Variant(chrom, pos - 1, ref, alt).kind for chrom, pos, ref, alt in places], dtype=object)
        self._sorted: dict[tuple[str, str], npt.NDArray[np.float32]] = {}
        for name in identity["fields"]:
            values = table[name].to_numpy().astype(np.float32)
            for kind in set(kinds):
                known = values[(kinds == kind) & ~np.isnan(values)]
                if len(known) >= FEWEST:
                    self._sorted[name, kind] = np.sort(known)
        self.few = [kind for kind in KINDS if kind not in {known for _, known in self._sorted}]

    def percentiles(self, name: str, values: npt.NDArray[np.float32], kinds: list[Kind]) -> npt.NDArray[np.float32]:
        """Give the percentile (0 to 1) of each score among its kind; NaN without a score or a background."""
        found = np.full(len(values), np.nan, dtype=np.float32)
        for kind in set(kinds):
            if (background := self._sorted.get((name, kind))) is not None:
                rows = (np.array(kinds, dtype=object) == kind) & ~np.isnan(values)
                ends = [background.searchsorted(values[rows], side) for side in ("left", "right")]
                found[rows] = (ends[0] + ends[1]) / (2 * len(background))
        return found
