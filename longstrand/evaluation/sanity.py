"""What is wrong with labelled data before any model sees it: leakage between splits, and labels that are given away.

`check_splits` looks at the tables alone; `truncation` adds what one tokenizer and input length cut off. Both give plain
numbers and sentences for the terminal, ``sanity.json`` and the report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import rankdata, spearmanr

from longstrand.data.bins import Moments, encode_bins, moments
from longstrand.data.labelled import LabelledTable, label_distribution
from longstrand.data.labelled_files import RawTable
from longstrand.errors import InputError
from longstrand.evaluation.leakage import Sketch, compare_kmers, sampling, sketch
from longstrand.genome.sequence import reverse_complement
from longstrand.runtime import generator

if TYPE_CHECKING:
    from longstrand.tokenization.base import Tokenizer

SEPARATED = 0.65
"""A single number that ranks two classes with an area under the ROC curve of this much gives the label away."""

FEW_NEAR = 0.01
"""Share of near duplicates of training rows that is still called small."""

MAX_EXAMPLES = 5
MAX_GC_ROWS = 500
"""Training rows whose bins are compared with their GC content."""

MANY_MISSING = 0.5


@dataclass(frozen=True)
class _Split:
    """Rows with the smaller strand of each, and their words."""

    table: RawTable
    keys: Sequence[str]
    sketch: Sketch


def check_splits(tables: Mapping[str, RawTable], labelled: Mapping[str, LabelledTable] | None = None) -> dict[str, Any]:
    """Look for leakage between splits and for labels that length or composition give away.

    Args:
        tables: normalised rows of ``train`` and, if they exist, ``valid`` and ``test``.
        labelled: the same splits with targets, for balance and composition; None leaves these out.

    Returns:
        ``splits`` {name: rows, lengths, duplicates within, balance}, ``across`` {"test in train", ...: duplicates,
        shared 32-mers and runs, near duplicates}, ``composition`` (what GC content, length and unknown letters alone
        say about the labels of the training rows), ``findings`` [{severity: leak, bias or note; text}].
    """
    one_in = sampling(table.sequences for table in tables.values())
    splits = {
        name: _Split(table, [_canonical(table, row) for row in range(len(table))], sketch(table.sequences, one_in))
        for name, table in tables.items()
    }
    report: dict[str, Any] = {"splits": {}, "across": {}, "composition": {}}
    for name, split in splits.items():
        report["splits"][name] = _within(split)
        if labelled is not None:
            report["splits"][name]["labels"] = label_distribution(labelled[name])
    for name, other in (("valid", "train"), ("test", "train"), ("test", "valid")):
        if name in tables and other in tables:
            report["across"][f"{name} in {other}"] = _across(splits[name], splits[other])
    if labelled is not None:
        report["composition"] = composition(labelled["train"])
    report["findings"] = _findings(report)
    return report


def leaks(report: Mapping[str, Any]) -> list[str]:
    """List the findings for which ``--strict`` refuses."""
    return [finding["text"] for finding in report["findings"] if finding["severity"] == "leak"]


def lines_of(report: Mapping[str, Any]) -> list[str]:
    """Write a sanity report as a few lines for the terminal."""
    lines = []
    for name, split in report["splits"].items():
        low, middle, high = (split["length"][key] for key in ("min", "median", "max"))
        size = f"{low:,}" if low == high else f"{low:,}-{high:,} (median {middle:,.0f})"
        lines.append(f"{name}: {split['num_rows']:,} rows of {size} bases{_balance_words(split.get('labels'))}")
    for pair, found in report["across"].items():
        same = found["num_identical"] + found["num_reverse_complement"]
        lines.append(
            f"{pair}: {same:,} duplicates ({found['num_reverse_complement']:,} on the other strand), "
            f"{found['num_near_duplicates']:,} near duplicates, {found['kmer_share']:.1%} of 32-mers shared"
        )
    lines += [f"{finding['severity']}: {finding['text']}" for finding in report["findings"]]
    return lines


def truncation(
    tables: Mapping[str, LabelledTable], tokenizer: Tokenizer, max_tokens: int, *, max_rows: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Measure what a model that reads ``max_tokens`` tokens (special ones included) does not see.

    Sequences are cut on the right, as training does. At most ``max_rows`` rows of each split are tokenized.

    Returns:
        {split: {num_rows (looked at), share_cut (rows that do not fit), share_bases_lost, share_labels_lost (of labels
        a base; equal to share_cut otherwise), median_tokens, max_tokens}}.
    """
    special = len(tokenizer.template.prefix) + len(tokenizer.template.suffix)
    report = {}
    for name, table in tables.items():
        order = generator(seed, 0, "truncation").permutation(len(table))[:max_rows].tolist()
        counts, lost, lost_labels, num_labels = [], 0, 0, 0
        for row in order:
            sequence = table.sequences[row]
            ids, offsets = tokenizer.encode_ids(sequence)
            counts.append(len(ids) + special)
            kept = max(0, max_tokens - special)
            end = len(sequence) if counts[-1] <= max_tokens else int(offsets[kept - 1][1]) if kept else 0
            lost += len(sequence) - end
            if isinstance(table.targets, list):
                lost_labels += int((table.targets[row][end:] >= 0).sum())
                num_labels += int((table.targets[row] >= 0).sum())
        share_cut = float(np.mean([count > max_tokens for count in counts]))
        report[name] = {
            "num_rows": len(order),
            "share_cut": share_cut,
            "share_bases_lost": lost / max(1, sum(len(table.sequences[row]) for row in order)),
            "share_labels_lost": lost_labels / num_labels if num_labels else share_cut,
            "median_tokens": float(np.median(counts)),
            "max_tokens": int(max(counts)),
        }
    return report


def truncation_line(report: Mapping[str, Any], max_tokens: int) -> str:
    """Write a truncation report as one sentence."""
    parts = [
        f"{name}: {found['share_cut']:.1%} of the rows are cut, {found['share_bases_lost']:.1%} of the bases and "
        f"{found['share_labels_lost']:.1%} of the labels are not seen"
        for name, found in report.items()
    ]
    return f"inputs of {max_tokens:,} tokens: " + "; ".join(parts) + "."


def composition(table: LabelledTable) -> dict[str, Any]:
    """Measure what GC content, length and unknown letters of a sequence alone say about its label.

    Returns:
        {feature: {by_class: {class: mean}, auc: {class: area under the ROC curve of the feature, class against rest},
        spearman: {target: rank correlation}, strongest: largest auc or 1 - auc, or |spearman|}}. Classes have
        ``by_class`` and ``auc``, numbers have ``spearman``. Empty for labels a base.
    """
    if isinstance(table.targets, list):
        return {}
    lengths = np.array([len(sequence) for sequence in table.sequences], dtype=np.float64)
    unknown = np.array([sequence.count("N") for sequence in table.sequences], dtype=np.float64)
    known = np.maximum(lengths - unknown, 1)
    gc = np.array([sequence.count("G") + sequence.count("C") for sequence in table.sequences]) / known
    features = {"gc": gc, "length": lengths, "unknown": unknown / lengths}
    return {name: _association(values, table) for name, values in features.items() if np.ptp(values) > 0}


def _association(values: np.ndarray, table: LabelledTable) -> dict[str, Any]:
    names, targets = table.task.names, np.asarray(table.targets)
    if table.task.problem == "regression":
        return _correlations(values, targets, names)
    member = targets[:, None] == np.arange(len(names)) if targets.ndim == 1 else targets > 0.5
    counts = member.sum(axis=0).astype(np.float64)
    others = len(values) - counts
    with np.errstate(invalid="ignore", divide="ignore"):
        above = rankdata(values) @ member - counts * (counts + 1) / 2
        area = above / (counts * others)
        means = values @ member / counts
    auc = {name: float(value) for name, value in zip(names, area) if np.isfinite(value)}
    return {
        "by_class": {name: float(value) for name, value in zip(names, means) if np.isfinite(value)},
        "auc": auc,
        "strongest": max((max(value, 1 - value) for value in auc.values()), default=0.5),
    }


def _correlations(values: np.ndarray, targets: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Correlate the ranks of values (n,) and targets (n, names), where both vary; missing targets are left out."""
    found = {}
    for column, name in zip(targets.T, names):
        rows = ~np.isnan(column)
        if rows.sum() > 2 and np.ptp(column[rows]) > 0 and np.ptp(values[rows]) > 0:
            found[name] = float(spearmanr(values[rows], column[rows]).statistic)
    return {"spearman": found, "strongest": max(map(abs, found.values()), default=0.0)}


def _canonical(table: RawTable, row: int) -> str:
    """Give the smaller strand of a row (of a pair: both sequences)."""
    text = table.sequences[row]
    if table.pairs is not None:
        text += "|" + table.pairs[row]
        other = reverse_complement(table.sequences[row]) + "|" + reverse_complement(table.pairs[row])
        return min(text, other)
    return min(text, reverse_complement(text))


def _labels(table: RawTable, row: int) -> tuple[str | None, ...]:
    return tuple(values[row] for values in table.labels.values())


def _within(split: _Split) -> dict[str, Any]:
    """Describe one split: sizes, repeated sequences, and repeated sequences with different labels."""
    table = split.table
    lengths = [len(sequence) for sequence in table.sequences]
    groups: dict[str, list[int]] = {}
    for row, key in enumerate(split.keys):
        groups.setdefault(key, []).append(row)
    repeated = [rows for rows in groups.values() if len(rows) > 1]
    turned = sum(table.sequences[row] != table.sequences[rows[0]] for rows in repeated for row in rows[1:])
    conflicts = [rows for rows in repeated if len({_labels(table, row) for row in rows}) > 1]
    return {
        "num_rows": len(table),
        "length": {"min": min(lengths), "median": float(np.median(lengths)), "max": max(lengths)},
        "num_repeated": sum(len(rows) - 1 for rows in repeated),
        "num_repeated_reverse_complement": turned,
        "num_conflicting": sum(map(len, conflicts)),
        "conflicts": [[table.rows[row] for row in rows] for rows in conflicts[:MAX_EXAMPLES]],
    }


def _across(judged: _Split, other: _Split) -> dict[str, Any]:
    """Say what rows of one split share with rows of another: the same sequence, words, half of their words."""
    table, reference = judged.table, other.table
    first: dict[str, int] = {}
    for row, key in enumerate(other.keys):
        first.setdefault(key, row)
    forward = set(reference.sequences)
    matches = [(row, first[key]) for row, key in enumerate(judged.keys) if key in first]
    turned = [row for row, _ in matches if table.sequences[row] not in forward]
    conflicting = [row for row, twin in matches if _labels(table, row) != _labels(reference, twin)]
    kmers = compare_kmers(judged.sketch, other.sketch)
    near = [(row, twin) for row, twin in kmers.near_duplicates if judged.keys[row] not in first]
    return {
        "num_identical": len(matches) - len(turned),
        "num_reverse_complement": len(turned),
        "num_conflicting": len(conflicting),
        "examples": [[table.rows[row], reference.rows[twin]] for row, twin in matches[:MAX_EXAMPLES]],
        "kmer_share": kmers.share,
        "sampled_one_in": kmers.sampled_one_in,
        "num_rows_with_long_run": kmers.num_long_runs,
        "longest_run": kmers.longest_run,
        "num_near_duplicates": len(near),
        "near_examples": [[table.rows[row], reference.rows[twin]] for row, twin in near[:MAX_EXAMPLES]],
    }


def _findings(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """Put what matters into sentences, the worst first."""
    leak: list[str] = []
    note: list[str] = []
    for pair, found in report["across"].items():
        name, other = pair.split(" in ")
        size = report["splits"][name]["num_rows"]
        same = found["num_identical"] + found["num_reverse_complement"]
        if same:
            differ = f", {found['num_conflicting']:,} with another label" if found["num_conflicting"] else ""
            leak.append(f"{same:,} of {size:,} {name} rows ({same / size:.1%}) are also {other} rows{differ}.")
        near = found["num_near_duplicates"]
        if near:
            where = leak if near > FEW_NEAR * size else note
            where.append(
                f"{near:,} of {size:,} {name} rows ({near / size:.1%}) share at least half of their 16-mers with one "
                f"{other} row (overlapping windows, paralogs or near copies)."
            )
    for name, split in report["splits"].items():
        if split["num_conflicting"]:
            note.append(f"{split['num_conflicting']:,} {name} rows have the same sequence and different labels.")
        if split["num_repeated"]:
            note.append(f"{split['num_repeated']:,} {name} rows repeat a sequence of that split.")
    bias = [_bias_words(feature, association) for feature, association in report["composition"].items()]
    grouped = [("leak", leak), ("bias", [text for text in bias if text]), ("note", note)]
    return [{"severity": severity, "text": text} for severity, texts in grouped for text in texts]


def _bias_words(feature: str, association: Mapping[str, Any]) -> str:
    title = {"gc": "GC content", "gc of a bin": "GC content of a bin", "length": "length", "unknown": "the share of N"}[
        feature
    ]
    if "spearman" in association:
        name = max(association["spearman"], key=lambda key: abs(association["spearman"][key]), default="")
        strong = association["strongest"] >= 2 * SEPARATED - 1
        return (
            f"{title} alone correlates with '{name}': Spearman {association['spearman'][name]:+.2f}." if strong else ""
        )
    if association["strongest"] < SEPARATED:
        return ""
    name = max(association["auc"], key=lambda key: abs(association["auc"][key] - 0.5))
    return (
        f"{title} alone tells class '{name}' from the rest with AUC "
        f"{max(association['auc'][name], 1 - association['auc'][name]):.2f}."
    )


def _balance_words(labels: Mapping[str, Any] | None) -> str:
    if not labels or any(isinstance(value, dict) for value in labels.values()):
        return ""
    common = Counter(labels).most_common()
    shown = ", ".join(f"{name}: {count:,}" for name, count in common[:4])
    return f"; {shown}" + (f" and {len(common) - 4} more labels" if len(common) > 4 else "")


def check_bins(
    tables: Mapping[str, RawTable], labelled: Mapping[str, LabelledTable]
) -> tuple[dict[str, Any], dict[str, Moments]]:
    """Look at a task of numbers per bin.

    Args:
        tables: normalised rows of ``train``, ``valid`` and ``test``.
        labelled: the same with targets, read row by row.

    Returns:
        The report of `longstrand.evaluation.sanity.check_splits` (copies and near copies within and across
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
    association = gc_of_bins(labelled["train"])
    if association["spearman"]:
        report["composition"]["gc"] = association
        text = _bias_words("gc of a bin", association)
        report["findings"] += [{"severity": "bias", "text": text}] if text else []
    return report, found


def _gaps(split: str, part: Moments, names: Sequence[str]) -> list[str]:
    share = 1 - part.count / max(1, part.num_bins)
    worst = int(share.argmax())
    flat = [name for name, spread in zip(names, part.deviation) if not spread > 0]
    sentences = []
    if share[worst] > MANY_MISSING:
        sentences.append(f"{share[worst]:.0%} of the {split} bins have no number for '{names[worst]}'.")
    if flat:
        shown = ", ".join(flat[:5]) + (", ..." if len(flat) > 5 else "")
        sentences.append(
            f"{len(flat):,} track(s) are the same in all {split} bins and have no correlation there: {shown}."
        )
    return sentences


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
    return _correlations(np.concatenate(shares), np.concatenate(targets), table.task.names)


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
