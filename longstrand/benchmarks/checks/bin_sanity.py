"""What is wrong with numbers per bin before any model sees them: copies, gaps, flat tracks, and what GC gives away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import spearmanr

from longstrand.benchmarks.checks.sanity import SEPARATED, check_splits
from longstrand.data.bins import Moments, encode_bins, moments
from longstrand.data.labelled import LabelledTable, RawTable
from longstrand.errors import InputError
from longstrand.runtime import generator

if TYPE_CHECKING:
    from longstrand.tokenization.base import Tokenizer

MAX_GC_ROWS = 500
"""Training rows whose bins are compared with their GC content."""

MANY_MISSING = 0.5


def check_bins(
    tables: Mapping[str, RawTable], labelled: Mapping[str, LabelledTable]
) -> tuple[dict[str, Any], dict[str, Moments]]:
    """Look at a task of numbers per bin.

    Args:
        tables: normalised rows of ``train``, ``valid`` and ``test``.
        labelled: the same with targets, read row by row.

    Returns:
        The report of `longstrand.benchmarks.checks.sanity.check_splits` (copies and near copies within and across
        splits) with ``splits[name]``: ``labels`` (mean and deviation of each track), ``num_bins``, ``missing`` {track:
        share of bins without a number}; ``composition``: ``gc`` of a bin against its number. And the moments of each
        split.
    """
    report = check_splits(tables)
    found = {name: moments(table.targets) for name, table in labelled.items()}
    names = labelled["train"].task.names
    for name, part in found.items():
        missing = 1 - part.count / max(1, part.num_bins)
        report["splits"][name] |= {
            "num_bins": part.num_bins,
            "missing": {track: float(share) for track, share in zip(names, missing)},
            "labels": {
                track: {"mean": float(part.mean[place]), "sd": float(part.deviation[place])}
                for place, track in enumerate(names)
                if part.count[place]
            },
        }
        report["findings"] += [{"severity": "note", "text": text} for text in _gaps(name, part, names)]
    about = gc_of_bins(labelled["train"])
    if about:
        report["composition"]["gc"] = about
        name = max(about["spearman"], key=lambda track: abs(about["spearman"][track]))
        if about["strongest"] >= 2 * SEPARATED - 1:
            text = f"GC content of a bin alone correlates with '{name}': Spearman {about['spearman'][name]:+.2f}."
            report["findings"].append({"severity": "bias", "text": text})
    return report, found


def _gaps(split: str, part: Moments, names: Sequence[str]) -> list[str]:
    share = 1 - part.count / max(1, part.num_bins)
    worst = int(share.argmax())
    flat = [name for name, spread in zip(names, part.deviation) if not spread > 0]
    said = []
    if share[worst] > MANY_MISSING:
        said.append(f"{share[worst]:.0%} of the {split} bins have no number for '{names[worst]}'.")
    if flat:
        shown = ", ".join(flat[:5]) + (", ..." if len(flat) > 5 else "")
        said.append(f"{len(flat):,} track(s) are the same in all {split} bins and have no correlation there: {shown}.")
    return said


def refuse_flat(task: str, found: Mapping[str, Moments], names: Sequence[str]) -> None:
    """Refuse a split in which no track differs between bins.

    Raises:
        InputError: naming the split.
    """
    for split, part in found.items():
        if not (part.deviation > 0).any():
            raise InputError(
                f"task '{task}': in the {split} split all bins of '{names[0]}' have the same number or none, and so "
                "have those of every track; check that the tracks cover the windows, or choose another split."
            )


def gc_of_bins(table: LabelledTable) -> dict[str, Any]:
    """Correlate the GC content of a bin with its number, track by track, on some of the rows.

    Returns:
        {spearman: {track: rank correlation}, strongest: the largest in size}; empty where nothing varies.
    """
    size = table.task.bin_bases
    assert size is not None
    rows = np.sort(generator(0, 0, "gc of bins").permutation(len(table))[:MAX_GC_ROWS])
    shares, targets = [], []
    for row in rows.tolist():
        letters = np.frombuffer(table.sequences[row].encode(), dtype=np.uint8).reshape(-1, size)
        shares.append(((letters == ord("G")) | (letters == ord("C"))).mean(axis=1))
        targets.append(table.targets[row])
    share, values = np.concatenate(shares), np.concatenate(targets)
    found = {}
    for place, name in enumerate(table.task.names):
        known = ~np.isnan(values[:, place])
        if known.sum() > 2 and np.ptp(values[known, place]) > 0 and np.ptp(share[known]) > 0:
            found[name] = float(spearmanr(share[known], values[known, place]).statistic)
    return {"spearman": found, "strongest": max(map(abs, found.values()))} if found else {}


def too_long(tables: Mapping[str, LabelledTable], tokenizer: Tokenizer, max_tokens: int, *, max_rows: int = 200) -> str:
    """Say how many windows (of ``max_rows`` of each split) a model that reads ``max_tokens`` tokens cannot read."""
    lengths = []
    for table in tables.values():
        assert table.task.bin_bases is not None
        rows = generator(0, 0, "truncation").permutation(len(table))[:max_rows].tolist()
        lengths += [len(encode_bins(tokenizer, table.sequences[row], table.task.bin_bases)) for row in rows]
    share = float(np.mean([length > max_tokens for length in lengths]))
    return (
        f"inputs of {max_tokens:,} tokens: {share:.1%} of {len(lengths):,} windows do not fit (the longest has "
        f"{max(lengths):,} tokens); windows of bins are never cut, so shorten them or give the model memory."
    )
