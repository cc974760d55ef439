"""Make the sections of a report from plain results: lists, arrays and rows in, dictionaries that JSON can hold out.

A section is ``{"kind": ..., "title": ..., "explain": ..., ...}``; `longstrand.report.page` turns each kind into HTML.
The numbers stay in the section, so that ``report.json`` can be read by a program and the page by a person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Section = dict[str, Any]

# What each metric means, in one sentence that needs no statistics course.
GLOSSARY: dict[str, tuple[str, str]] = {
    "accuracy": ("accuracy", "share of calls that are right."),
    "balanced_accuracy": ("balanced accuracy", "mean over the classes of the share found; guessing gives 1 / classes."),
    "f1": ("F1", "balance of finding all positives and calling few false ones; 1 is perfect, 0 the worst."),
    "f1_macro": ("F1, mean over classes", "balance of finding each class and calling few others so; 1 is perfect."),
    "f1_micro": ("F1, all labels pooled", "balance of finding all labels and calling few false ones; 1 is perfect."),
    "mcc": ("Matthews correlation", "agreement of call and truth: 1 is perfect, 0 is guessing, -1 is always wrong."),
    "mean_mcc": ("Matthews correlation, mean over labels", "agreement of call and truth: 1 is perfect, 0 is guessing."),
    "roc_auc": ("area under ROC", "chance that a random positive scores above a random negative; guessing gives 0.5."),
    "mean_roc_auc": ("area under ROC, mean over labels", "chance that a positive outscores a negative; guessing: 0.5."),
    "average_precision": (
        "average precision",
        "share of right calls over all thresholds; guessing: share of positives.",
    ),
    "mean_average_precision": ("average precision, mean over labels", "share of right calls over all thresholds."),
    "precision": ("precision", "share of the positive calls that are right."),
    "recall": ("recall", "share of the positives that were found."),
    "pearson": ("Pearson correlation", "linear agreement of prediction and measurement; 1 is perfect, 0 is none."),
    "spearman": (
        "Spearman correlation",
        "agreement in the order of prediction and measurement; 1 is perfect, 0 is none.",
    ),
    "r2": ("R squared", "share of the variation that the prediction explains; predicting the mean gives 0."),
    "mse": ("mean squared error", "mean squared distance of prediction and measurement; smaller is better."),
    "mae": ("mean absolute error", "mean distance of prediction and measurement, in its unit; smaller is better."),
    "loss": ("loss", "mean surprise about the right answer, in nats; smaller is better."),
}


def metric_title(name: str) -> str:
    """Give the full name of a metric, or the name itself."""
    return GLOSSARY.get(name.removeprefix("test_"), (name.replace("_", " "), ""))[0]


def metric_meaning(name: str) -> str:
    """Give the sentence that explains a metric, or an empty string."""
    return GLOSSARY.get(name.removeprefix("test_"), ("", ""))[1]


def curves_section(
    title: str,
    explain: str,
    series: Sequence[Mapping[str, Any]],
    *,
    x_label: str,
    y_label: str,
    references: Mapping[str, float] | None = None,
    table: tuple[Sequence[str], Sequence[Sequence[Any]]] | None = None,
) -> Section:
    """Make a section of curves; see `longstrand.report.plots.draw_curves` for the series.

    ``table`` (columns, rows) stands under the picture instead of the ends of each curve.

    Raises:
        ValueError: a series has different numbers of x and y values.
    """
    for line in series:
        if len(line["x"]) != len(line["y"]):
            raise ValueError(f"series '{line['name']}' has {len(line['x'])} x but {len(line['y'])} y values.")
    kept = [{**line, "x": list(map(float, line["x"])), "y": list(map(float, line["y"]))} for line in series]
    return {
        "kind": "curves",
        "title": title,
        "explain": explain,
        "series": kept,
        "x_label": x_label,
        "y_label": y_label,
        "references": dict(references or {}),
        **({"table": {"columns": list(table[0]), "rows": [list(row) for row in table[1]]}} if table else {}),
    }


def points_section(
    title: str,
    explain: str,
    points: Sequence[Mapping[str, Any]],
    *,
    x_label: str,
    y_label: str,
    table: tuple[Sequence[str], Sequence[Sequence[Any]]] | None = None,
) -> Section:
    """Make a section of named points; see `longstrand.report.plots.draw_points`, and `curves_section` for ``table``."""
    kept = [{key: point[key] for key in ("name", "group", "x", "y")} for point in points]
    return {
        "kind": "points",
        "title": title,
        "explain": explain,
        "points": kept,
        "x_label": x_label,
        "y_label": y_label,
        **({"table": {"columns": list(table[0]), "rows": [list(row) for row in table[1]]}} if table else {}),
    }


def grid_section(
    title: str, explain: str, columns: Sequence[str], rows: Mapping[str, Sequence[float | None]], lower: Sequence[bool]
) -> Section:
    """Make a table of scores, shaded within each column from the worst to the best.

    Args:
        title: heading.
        explain: how to read it.
        columns: names of the columns.
        rows: name of a row to its scores, one a column; None if there is none.
        lower: for each column whether lower is better.

    Raises:
        ValueError: a row has another number of scores than there are columns.
    """
    if any(len(scores) != len(columns) for scores in [*rows.values(), lower]):
        raise ValueError(f"a row of '{title}' has not {len(columns)} scores.")
    lines = [{"name": name, "scores": list(scores)} for name, scores in rows.items()]
    head = {"title": title, "explain": explain, "columns": list(columns), "lower": list(lower)}
    return {"kind": "grid", **head, "rows": lines}


def metrics_section(
    title: str,
    explain: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    main: str,
    groups: Mapping[str, str] | None = None,
) -> Section:
    """Make the table of metrics and the dot plot of the main one.

    Args:
        title: heading.
        explain: what the reader sees and how to read it.
        rows: each ``{"model", "metric", "value", "low", "high", "seeds"}``; the last three may be missing. ``low`` and
            ``high`` are the ends of the 95 % interval.
        main: the metric of the dot plot.
        groups: model to the kind it belongs to; a kind has one colour. None: each model has its own.

    Raises:
        ValueError: no row has the main metric.
    """
    if not any(row["metric"] == main for row in rows):
        raise ValueError(f"no row has the metric '{main}'; there are {sorted({row['metric'] for row in rows})}.")
    complete = [{"low": None, "high": None, "seeds": None, **row} for row in rows]
    return {
        "kind": "metrics",
        "title": title,
        "explain": explain,
        "rows": complete,
        "main": main,
        "groups": dict(groups or {}),
    }


def confusion_section(title: str, counts: Sequence[Sequence[int]], classes: Sequence[str]) -> Section:
    """Show how often each true class (row of ``counts``) was called each class (column)."""
    explain = (
        "Each row is a true class, each column a call; the diagonal holds the right ones. "
        "The percentage is the share of the row, so a perfect model shows 100 % on the diagonal."
    )
    rows = [[int(count) for count in row] for row in counts]
    return {"kind": "confusion", "title": title, "explain": explain, "counts": rows, "classes": list(classes)}


def metric_rows(model: str, evaluations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Turn the evaluations of one model, one per seed, into rows of `metrics_section`.

    Args:
        model: name for the reader.
        evaluations: each with ``metrics`` {name: {value, low, high}}, of `longstrand.evaluation.metrics.evaluate`.

    Returns:
        One row a metric: the mean over the seeds of the value and of both ends of the interval.
    """
    rows = []
    for name in evaluations[0]["metrics"]:
        entries = [evaluation["metrics"][name] for evaluation in evaluations]
        ends = {key: _mean([entry.get(key) for entry in entries]) for key in ("value", "low", "high")}
        rows.append({"model": model, "metric": name, **ends, "seeds": [entry["value"] for entry in entries]})
    return rows


def _mean(values: Sequence[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None and value == value]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def ranking_section(title: str, evaluations: Mapping[str, Mapping[str, Any]], *, positive: str) -> Section:
    """Put the ROC and precision-recall curves of several models on one test set into one picture.

    Args:
        title: heading.
        evaluations: model name to its evaluation with ``curves`` {class: {roc, pr}} and ``per_class``.
        positive: the class whose curves are drawn.

    Raises:
        ValueError: a model has no curves for this class.
    """
    series = []
    for name, evaluation in evaluations.items():
        curves = evaluation.get("curves", {}).get(positive)
        if not curves or not curves["roc"]["fpr"]:
            raise ValueError(f"'{name}' has no curves for the class '{positive}': the test set needs both classes.")
        areas = {key: float(evaluation["per_class"][positive][key]) for key in ("roc_auc", "average_precision")}
        series.append({"name": name, **curves["roc"], **curves["pr"], **areas})
    per_class = next(iter(evaluations.values()))["per_class"]
    total = sum(entry["num_true"] for entry in per_class.values())
    prevalence = per_class[positive]["num_true"] / max(1, total)
    explain = (
        f"The positives are '{positive}'. Left: a lower threshold finds more of them but calls more negatives so; the "
        "diagonal is guessing. Right: how many calls are right for each share found; the dashed line is guessing."
    )
    return {"kind": "ranking", "title": title, "explain": explain, "series": series, "prevalence": prevalence}


def tokens_section(bases: Mapping[int, int], longest: Sequence[tuple[str, int]]) -> Section:
    """Describe how a tokenizer cuts DNA.

    Args:
        bases: number of bases in a token to the number of such tokens seen in a sample.
        longest: the longest tokens seen, each with how often.
    """
    total = sum(bases.values())
    mean = sum(length * count for length, count in bases.items()) / max(1, total)
    explain = (
        f"The model reads tokens, not single bases: here one token covers {mean:.2f} bases on average, "
        f"so 512 tokens see about {512 * mean:,.0f} bases. Long tokens are frequent words, mostly repeats."
    )
    return {
        "kind": "tokens",
        "title": "How the tokenizer cuts DNA",
        "explain": explain,
        "mean_bases": mean,
        "bases": [{"bases": length, "count": count} for length, count in sorted(bases.items())],
        "longest": [{"token": token, "bases": len(token), "count": count} for token, count in longest],
    }


def leakage_section(splits: Mapping[str, Sequence[str]]) -> Section:
    """Count sequences that occur in two splits, as they are or as their reverse complement.

    Args:
        splits: name of a split to its sequences; case is ignored.
    """
    pairs = count_leakage(splits)
    found = sum(pair["exact"] + pair["reverse_complement"] for pair in pairs)
    verdict = (
        "No sequence of one split occurs in another, on either strand."
        if not found
        else f"{found:,} sequences occur in two splits: the results on them measure memory, not understanding."
    )
    explain = (
        f"{verdict} Only identical copies are counted; similar sequences (paralogs, repeats) can still be in both."
    )
    return {"kind": "leakage", "title": "Do the splits overlap?", "explain": explain, "pairs": pairs}


def count_leakage(splits: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Count, for every pair of splits, the rows of the later one that the earlier one holds.

    Returns:
        One ``{"of", "in", "rows", "exact", "reverse_complement"}`` per pair; a row that occurs both ways is exact.
    """
    from longstrand.genome.sequence import reverse_complement

    names = list(splits)
    sets = {name: {sequence.upper() for sequence in splits[name]} for name in names}
    pairs = []
    for first, known in enumerate(names):
        for other in names[first + 1 :]:
            rows = [sequence.upper() for sequence in splits[other]]
            exact = [row in sets[known] for row in rows]
            turned = [not same and reverse_complement(row) in sets[known] for row, same in zip(rows, exact)]
            counts = {"exact": sum(exact), "reverse_complement": sum(turned)}
            pairs.append({"of": other, "in": known, "rows": len(rows), **counts})
    return pairs


def table_section(title: str, explain: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Section:
    """Make a plain table."""
    return {
        "kind": "table",
        "title": title,
        "explain": explain,
        "columns": list(columns),
        "rows": [list(r) for r in rows],
    }


def provenance_section(provenance: Mapping[str, Any], **files: Any) -> Section:
    """Say what made the results: command, versions, machine, data fingerprints."""
    explain = "With the command, the data and the versions below, anyone can repeat these results."
    facts = {**files, **provenance}
    return {"kind": "provenance", "title": "Where this comes from", "explain": explain, "facts": facts}


def commands_section(title: str, explain: str, commands: Sequence[tuple[str, str]]) -> Section:
    """List commands to copy, each with what it does."""
    entries = [{"what": what, "command": command} for what, command in commands]
    return {"kind": "commands", "title": title, "explain": explain, "commands": entries}
