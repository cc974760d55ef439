"""What a model is worth on labelled rows: its scores, baselines beside it, the report, predictions as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from longstrand.baselines.kmer import KmerRegression
from longstrand.baselines.majority import Majority
from longstrand.baselines.registry import BASELINES, BaselineSettings
from longstrand.data.bins import moments
from longstrand.data.labelled import LabelledTable, label_warnings
from longstrand.data.rows import Record
from longstrand.data.signals import undo_all
from longstrand.evaluation.compare import compare_predictions
from longstrand.evaluation.metrics import LOWER_IS_BETTER, METRICS, PRIMARY, Scores, evaluate
from longstrand.evaluation.sanity import check_splits, leaks
from longstrand.evaluation.tracks import examples, gene_metrics, track_metrics
from longstrand.genome.annotation import read_annotation, transcripts
from longstrand.genome.sequence import gc_fraction
from longstrand.inference.options import PredictOptions
from longstrand.inference.predict import predict, probabilities
from longstrand.runtime import write_frame
from longstrand.training.examples import Prepared, Scale
from longstrand.training.settings import FinetuneConfig

if TYPE_CHECKING:
    import polars as pl

    from longstrand.tokenization.base import Tokenizer

FEW_ROWS = 20
"""Rows of a group by GC content, at least."""
MOST_SHOWN = 8
"""Outputs whose numbers are listed for a row."""


@dataclass(frozen=True)
class Scored:
    """Logits of a table.

    Attributes:
        table: the rows.
        logits: float32 (n, num_outputs), or for token problems a list of n arrays (num_bases, num_outputs), for bins of
            n arrays (num_bins, num_outputs) of predicted numbers. NaN where
            the model saw nothing (no token, or bases past the cut).
        num_tokens: tokens of each row that the model saw.
        truncated: whether each row was cut.
    """

    table: LabelledTable
    logits: np.ndarray | list[np.ndarray]
    num_tokens: list[int]
    truncated: list[bool]

    def scores(self) -> Scores:
        """Turn logits into probabilities (or numbers), with the targets, for `evaluate`."""
        problem = self.table.task.problem
        if problem == "regression":
            return Scores.of(self.table, self.logits)
        logits = np.concatenate(self.logits) if isinstance(self.logits, list) else self.logits
        return Scores.of(self.table, probabilities(logits, problem))

    def loss(self) -> float:
        """Mean loss over labelled targets in natural units of the problem (no class weights); NaN without any."""
        task = self.table.task
        if task.problem in ("single_label", "token"):
            scores = self.scores()
            known = (scores.targets >= 0) & ~np.isnan(scores.values).any(axis=1)
            chosen = scores.values[known, scores.targets[known]]
            return float(-np.log(np.clip(chosen, 1e-12, 1)).mean()) if known.any() else float("nan")
        pair = Scores.of(self.table, self.logits)
        targets, logits = (np.asarray(part, np.float64) for part in (pair.targets, pair.values))
        known = ~np.isnan(targets) & ~np.isnan(logits)
        if not known.any():
            return float("nan")
        truth, predicted = targets[known], logits[known]
        if task.problem == "regression":
            return float(((truth - predicted) ** 2).mean())
        return float((np.logaddexp(0, predicted) - truth * predicted).mean())


def score(
    model: Any, table: LabelledTable, *, tokenizer: Tokenizer, settings: PredictOptions, scale: Scale | None = None
) -> Scored:
    """Apply a model to all rows of a table, in their order.

    Args:
        model: with a sequence or token head.
        table: n rows.
        tokenizer: the model's own.
        settings: of `longstrand.inference.predict.predict`; ``output`` is set here; logits are divided by the
            temperature.
        scale: regression: (mean, deviation) of the targets that the model was trained on in standardised form.
    """
    is_token, is_bin = table.task.problem == "token", table.task.bin_bases is not None
    as_rates = is_bin and model.head_settings.problem == "counts"
    settings = settings.changed(
        output="probabilities" if as_rates else "logits", pooling="bases" if is_token else "mean"
    )
    rows = list(predict(model, records(table), tokenizer=tokenizer, options=settings))
    values: Any = [row.values for row in rows]
    if settings.temperature is not None:
        values = [one / settings.temperature for one in values]
    if scale is not None:
        values = [(one * scale[1] + scale[0]).astype(np.float32) for one in values]
    if not is_token and not is_bin:
        values = np.stack(values)
    return Scored(table, values, [row.num_tokens for row in rows], [row.truncated for row in rows])


def records(table: LabelledTable) -> Iterator[Record]:
    """Give the rows as `predict` reads them."""
    raw = table.raw
    for index, sequence in enumerate(raw.sequences):
        second = raw.pairs[index] if raw.pairs is not None else None
        name = raw.names[index] if raw.names is not None else str(raw.rows[index])
        yield Record(index, name, sequence, second=second, where=f"{raw.source}, row {raw.rows[index]}")


def validation_numbers(scored: Scored) -> dict[str, float]:
    """Give the loss and all metrics of the validation rows, for choosing the best checkpoint.

    A metric that is undefined (a constant prediction has no correlation) counts as the worst value.
    """
    found = evaluate(scored.scores(), num_resamples=0, curves=False)["metrics"]
    numbers = {"loss": scored.loss()}
    for name in METRICS[scored.table.task.problem]:
        value = float(found[name]["value"]) if name in found else float("nan")
        worst = 1e9 if name in LOWER_IS_BETTER else -1.0
        numbers[name] = value if value == value else worst
    return numbers


def fold_scale(model: Any, scale: Scale) -> None:
    """Put the scale of standardised targets into the output layer, so that the model predicts natural units."""
    mean, spread = (torch.as_tensor(values, dtype=torch.float32) for values in scale)
    output = model.classifier.output
    with torch.no_grad():
        output.bias.mul_(spread.to(output.bias)).add_(mean.to(output.bias))
        output.weight.mul_(spread.to(output.weight)[:, None])


def start_at_mean(model: Any, table: LabelledTable) -> None:
    """Set the output bias of a head of counts to the mean of each target; training then begins with what differs."""
    bias = (
        torch.as_tensor(np.nan_to_num(moments(table.targets).mean), dtype=torch.float64).clamp(min=1e-3).expm1().log()
    )
    with torch.no_grad():
        model.classifier.output.bias.copy_(bias)


def make_report(
    config: FinetuneConfig, data: Prepared, scored: Mapping[str, Scored], *, rows: list[dict[str, Any]], best_step: int
) -> dict[str, Any]:
    """Evaluate the best checkpoint and describe the run.

    Args:
        config: the settings.
        data: splits and tokens.
        scored: predictions of the validation and (if there is one) the test rows.
        rows: rows of ``metrics.jsonl``.
        best_step: step of the checkpoint that was measured.

    Returns:
        ``task``, ``splits`` (counts of each), ``valid`` and ``test`` (as `longstrand.evaluation.metrics.evaluate`),
        ``baselines`` ({name: {split: evaluation}}), ``sanity`` (as `check_splits`), ``warnings`` (sentences), ``curve``
        (evaluations of the training), ``best_step``.
    """
    settings, task = config.evaluation, data.splits.task
    report: dict[str, Any] = {
        "kind": "finetuning",
        "init": config.model.init,
        "task": {"problem": task.problem, "names": list(task.names), "columns": list(task.columns), "why": task.reason},
        "split_origin": data.splits.origin,
        "splits": {name: _split_counts(data, name) for name, _ in data.splits.items()},
        "best_step": best_step,
        "steps": max((row["step"] for row in rows), default=0),
        "metric": data.metric,
        "curve": [row for row in rows if "eval_loss" in row],
        "search": data.search,
        "training_loss": [{"step": row["step"], "loss": row["loss"]} for row in rows if "loss" in row],
    }
    for name, result in scored.items():
        report[name] = evaluate(result.scores(), num_resamples=settings.resamples, seed=0) | {"loss": result.loss()}
    judged = scored["test" if "test" in scored else "valid"]
    report |= {"errors": worst_rows(judged), "groups": groups_of(judged)}
    report["collapsed"] = any(report[name]["constant_prediction"] for name in scored)
    tables = {name: table.upper_case() for name, table in data.splits.items()}
    labelled = tables if task.bin_bases is None else None
    report["sanity"] = check_splits({name: table.raw for name, table in tables.items()}, labelled)
    if settings.baselines and task.bin_bases is None:
        report["baselines"] = run_baselines(
            data.splits.train,
            {name: result.table for name, result in scored.items()},
            k=settings.kmer,
            both_strands=settings.strand == "both",
            num_resamples=settings.resamples,
            ours={name: result.scores() for name, result in scored.items() if name == "test" and settings.resamples},
        )
    if data.splits.signals is not None:
        report |= signals_report(config, data, scored)
    report["warnings"] = label_warnings(dict(data.splits.items())) + warnings_of(report)
    return report


def signals_report(config: FinetuneConfig, data: Prepared, scored: Mapping[str, Scored]) -> dict[str, Any]:
    """Measure tracks over all their axes, beside baselines, and give some regions to look at.

    Returns:
        ``baselines`` ({name: {split: evaluation}}) and ``signals``: ``tracks`` (what each is like, its transform),
        ``loss``, ``metrics`` ({method: `track_metrics`} of the split that is judged), ``examples``.
    """
    signals, settings = data.splits.signals, config.evaluation
    assert signals is not None
    split = "test" if "test" in scored else "valid"
    table = scored[split].table
    predicted: dict[str, Any] = {"this model": scored[split].logits}
    found: dict[str, Any] = {}
    names = ["majority", "place", "kmer-bins", *(["cnn-basenji"] if settings.cnn else [])]
    fitting = BaselineSettings(seed=config.training.seed, both_strands=settings.strand == "both", bin_loss=signals.loss)
    for name in names if settings.baselines else ():
        fitted = BASELINES[name].fit(data.splits.train, data.splits.valid, fitting)
        predicted[name] = fitted.predict(table.sequences, None)
        found[name] = {split: evaluate(Scores.of(table, predicted[name]), num_resamples=settings.resamples)}
    transforms, truth = signals.transforms(), list(table.targets)
    natural = {name: [undo_all(transforms, part) for part in parts] for name, parts in predicted.items()}
    counted = [undo_all(transforms, part) for part in truth]
    metrics = {name: track_metrics(truth, parts, natural=(counted, natural[name])) for name, parts in predicted.items()}
    places = table.raw.places or []
    if settings.annotation is not None:
        genes = transcripts(read_annotation(settings.annotation, contigs={place.chrom for place in places}))
        for name in metrics:
            metrics[name] |= gene_metrics(counted, natural[name], places, genes, signals.bin_bases)
    shown = [
        {"region": str(places[row]), **asdict(places[row]),
         "observed": counted[row].tolist(), "predicted": natural["this model"][row].tolist()}
        for row in examples(counted)
    ]  # fmt: skip
    return {"baselines": found, "signals": signals.facts() | {"split": split, "metrics": metrics, "examples": shown}}


def _split_counts(data: Prepared, name: str) -> dict[str, Any]:
    table, tokens = dict(data.splits.items())[name], data.tokenized[name]
    lengths = [len(encoding) for encoding in tokens.encodings]
    return table.counts() | {
        "num_truncated": tokens.num_truncated,
        "num_without_tokens": tokens.num_empty,
        "max_tokens": data.limit,
        "tokens": {"median": float(np.median(lengths)), "max": int(max(lengths))},
    }


def warnings_of(report: Mapping[str, Any]) -> list[str]:
    """Say in sentences what a reader must know before believing the numbers."""
    warnings = []
    for name, counts in report["splits"].items():
        if counts["num_truncated"]:
            warnings.append(
                f"{name}: {counts['num_truncated']:,} of {counts['num_rows']:,} sequences were cut to "
                f"{counts['max_tokens']:,} tokens, what the model can read."
            )
        if counts["num_without_tokens"]:
            warnings.append(f"{name}: {counts['num_without_tokens']:,} sequences are too short to have a token.")
        if counts["num_rows_dropped"]:
            warnings.append(
                f"{name}: {counts['num_rows_dropped']:,} rows were left out, their window leaves the chromosome."
            )
        if counts["num_unknown_letters"] > 0.01 * counts["num_bases"]:
            share = 100 * counts["num_unknown_letters"] / counts["num_bases"]
            warnings.append(f"{name}: {share:.1f} % of the letters are unknown (N or ambiguous).")
    if report["collapsed"]:
        warnings.append(
            "the model gives the same answer to every sequence: it has learned nothing. Try a higher rate "
            "(--rate 1e-3), more passes (--epochs 30) or 'longstrand probe', which needs neither."
        )
    for name in ("valid", "test"):
        warnings += unread(name, report.get(name), report["task"]["problem"])
    return warnings + overlap_warnings(report["sanity"]) + _against_baselines(report)


def overlap_warnings(report: Mapping[str, Any]) -> list[str]:
    """Say what `check_splits` found, and what to do about rows that training has seen."""
    advice = "splits that share rows: split by chromosome (valid_chroms, test_chroms) or by a column 'split'."
    return [finding["text"] for finding in report["findings"]] + ([advice] if leaks(report) else [])


def same_answers(found: Mapping[str, Any], problem: str) -> list[str]:
    """Say that a model tells nothing apart, although the labels of the rows differ."""
    unit = "base" if problem == "token" else "sequence"
    return found["constant_prediction"] * [
        f"the model gives the same answer to every {unit}, though the labels differ: either it has learned nothing, or "
        "these rows are unlike those that it was trained on."
    ]


def unread(name: str, found: Mapping[str, Any] | None, problem: str) -> list[str]:
    """Say what the numbers of one split leave out."""
    if found is None:
        return []
    warnings, left_out, unit = [], found["num_not_predicted"], "bases" if problem == "token" else "rows"
    if left_out:
        total = left_out + found["num_evaluated"]
        warnings.append(
            f"{name}: {left_out:,} of {total:,} labelled {unit} were not measured, because the model did not read "
            "them; the numbers are of the others."
        )
    return warnings


def _against_baselines(report: Mapping[str, Any]) -> list[str]:
    split = "test" if "test" in report else "valid"
    primary = report[split]["primary"]
    ours = report[split]["metrics"].get(primary, {}).get("value")
    baselines = report.get("baselines", {})
    found = (baselines.get("kmer") or baselines.get("kmer-bins") or {}).get(split, {})
    theirs = found.get("metrics", {}).get(primary, {}).get("value")
    if ours is None or theirs is None or not ours < theirs:
        return []
    paired = found.get("paired")
    numbers = f"{primary} {theirs:.3f} against {ours:.3f}" + (f", paired test p = {paired['p']:.2g}" if paired else "")
    if paired and paired["verdict"] == "worse":
        return [f"{split}: k-mer regression is better ({numbers})."]
    return [f"{split}: no evidence that the model is better than k-mer regression ({numbers})."]


def write_predictions(scored: Scored, path: Path) -> None:
    """Write one row for each row of the table, in its order, as CSV or Parquet (by the name of the file).

    Columns: ``row`` and ``name``, labels, predictions (class and probabilities, probabilities of labels, numbers),
    ``num_tokens``, ``truncated``. For token problems ``label`` and ``predicted`` hold one class a base, separated by
    spaces; bases past the cut are ``?``.
    """
    write_frame(path, prediction_frame(scored))


def prediction_frame(scored: Scored) -> pl.DataFrame:
    """Make the table of `write_predictions`."""
    import polars as pl

    raw, task = scored.table.raw, scored.table.task
    columns: dict[str, Any] = {"row": raw.rows}
    if raw.names is not None:
        columns["name"] = raw.names
    if task.bin_bases is not None:
        columns |= _bin_columns(scored)
    elif task.problem == "token":
        columns |= _token_columns(scored)
    else:
        values = scored.scores().values
        targets = np.asarray(scored.table.targets)
        if task.problem == "single_label":
            columns["label"] = [task.names[index] for index in targets]
            known = ~np.isnan(values).any(axis=1)
            called = np.where(known[:, None], values, 0).argmax(axis=1)
            columns["predicted"] = [task.names[index] if there else None for index, there in zip(called, known)]
            columns |= {f"probability_{name}": values[:, number] for number, name in enumerate(task.names)}
        else:
            word = "predicted" if task.problem == "regression" else "probability"
            for number, name in enumerate(task.names):
                columns[name if name not in columns else f"label_{name}"] = targets[:, number]
                columns[f"{word}_{name}"] = values[:, number]
    columns |= {"num_tokens": scored.num_tokens, "truncated": scored.truncated}
    return pl.DataFrame(columns, nan_to_null=True)


def worst_rows(scored: Scored, number: int = 10) -> list[dict[str, Any]]:
    """Find the rows with the largest error, as `worst_of` does, with what they are; none for labels per base and bin.

    Returns:
        ``row``, ``name`` (if rows have names), ``label``, ``predicted``, ``error``, and the beginning of the sequence.
    """
    task, raw = scored.table.task, scored.table.raw
    if task.problem == "token" or task.bin_bases is not None:
        return []
    return [
        {"row": raw.rows[i], **({"name": raw.names[i]} if raw.names is not None else {}), **found,
         "sequence": f"{raw.sequences[i][:40]}..."}
        for i, found in worst_of(scored.scores(), number)
    ]  # fmt: skip


def worst_of(scores: Scores, number: int = 10) -> list[tuple[int, dict[str, Any]]]:
    """Find the largest errors, worst first: the least probability of the true class, or the largest difference.

    Returns:
        The place among the rows, and ``label``, ``predicted`` and ``error`` (1 - probability, or the size of the
        difference); of many outputs (more than `MOST_SHOWN`) the one with the largest difference. Rows without a label
        or a prediction are left out.
    """
    names, values = scores.task.names, scores.values
    if scores.task.problem == "single_label":
        targets = np.asarray(scores.targets).astype(np.int64)
        labels = [names[i] for i in targets]
        called = [names[i] for i in np.nan_to_num(values).argmax(axis=1)]
        errors = np.where(targets >= 0, 1 - np.take_along_axis(values, targets[:, None], axis=1)[:, 0], np.nan)
    else:
        apart = np.abs(np.asarray(scores.targets) - values)
        errors, most = np.fmax.reduce(apart, axis=1), np.nan_to_num(apart, nan=-1.0).argmax(axis=1)
        labels, called = (
            [";".join(f"{value:.4g}" for value in row) if len(names) <= MOST_SHOWN else f"{names[at]} {row[at]:.4g}"
             for row, at in zip(part, most)]
            for part in (scores.targets, values)
        )  # fmt: skip
    worst = np.argsort(-np.nan_to_num(errors, nan=-1.0), kind="stable")[:number]
    return [(i, {"label": labels[i], "predicted": called[i], "error": float(errors[i])})
            for i in worst.tolist() if errors[i] == errors[i]]  # fmt: skip


def groups_of(
    scored: Scored, names: Sequence[str] | None = None, num_resamples: int = 0
) -> dict[str, dict[str, dict[str, Any]]]:
    """Measure the rows of each chromosome, of quarters by GC content, and of each name, where there are two or more.

    Returns:
        ``{"group": {name: {num_rows, metrics}}, "chromosome": ..., "GC content": ...}``, largest group first; metrics
        as of `longstrand.evaluation.metrics.evaluate`.
    """
    table = scored.table
    raw = table.raw
    chroms = raw.chroms or [place.chrom for place in raw.places or []]
    shares = np.array([gc_fraction(text) for text in table.sequences])
    ends = np.quantile(shares, np.linspace(0, 1, 1 + int(np.clip(len(shares) // FEW_ROWS, 1, 4))))
    words = [f"{100 * low:.1f} to {100 * high:.1f} %" for low, high in pairwise(ends)]
    quarters = [words[place] for place in np.searchsorted(ends[1:-1], shares, side="right").tolist()]
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for kind, labels in (("group", names or []), ("chromosome", chroms), ("GC content", quarters)):
        rows: dict[str, list[int]] = {}
        for row, name in enumerate(labels):
            rows.setdefault(str(name), []).append(row)
        for name, chosen in sorted(rows.items(), key=lambda group: (-len(group[1]), group[0])):
            if len(rows) == 1 and kind != "group":
                break
            logits = (
                scored.logits[chosen] if isinstance(scored.logits, np.ndarray) else [scored.logits[r] for r in chosen]
            )
            part = Scored(table.take(chosen), logits, [], []).scores()
            metrics = evaluate(part, num_resamples=num_resamples, seed=0, curves=False)["metrics"]
            found.setdefault(kind, {})[name] = {"num_rows": len(chosen), "metrics": metrics}
    return found


def _bin_columns(scored: Scored) -> dict[str, list[str]]:
    """Give targets and predictions of each target, the numbers of a row's bins joined by ``;``."""

    def joined(rows: Any, number: int) -> list[str]:
        return [";".join("" if value != value else f"{value:g}" for value in row[:, number]) for row in rows]

    columns = {}
    for number, name in enumerate(scored.table.task.names):
        columns[name] = joined(scored.table.targets, number)
        columns[f"predicted_{name}"] = joined(scored.logits, number)
    return columns


def _token_columns(scored: Scored) -> dict[str, list[str]]:
    names = [*scored.table.task.names, "?"]
    labels, predicted = [], []
    for target, logits in zip(scored.table.targets, scored.logits):
        known = ~np.isnan(logits).any(axis=1)
        called = np.where(known, np.where(known[:, None], logits, 0).argmax(axis=1), len(names) - 1)
        labels.append(" ".join(names[index] if index >= 0 else "?" for index in target))
        predicted.append(" ".join(names[index] for index in called))
    return {"label": labels, "predicted": predicted}


def run_baselines(
    train: LabelledTable,
    measured: Mapping[str, LabelledTable],
    *,
    k: int = 6,
    both_strands: bool = False,
    num_resamples: int = 1000,
    ours: Mapping[str, Scores] | None = None,
) -> dict[str, dict[str, Any]]:
    """Fit k-mer regression and the majority on the training rows and evaluate them.

    Args:
        train: training rows.
        measured: the splits to evaluate, by name; ``valid`` also chooses the penalty of the k-mer regression.
        k: bases of a k-mer.
        both_strands: count k-mers of both strands.
        num_resamples: as in `longstrand.evaluation.metrics.evaluate`.
        ours: predictions of the model, to be compared with the k-mer regression on the same rows.

    Returns:
        ``{"kmer": {split: evaluation}, "majority": {split: evaluation}}``; token problems have no ``kmer``. With
        ``ours`` an evaluation has ``paired``: the `PairedDifference`, model minus k-mer regression, and its verdict.
    """
    train, measured = train.upper_case(), {name: table.upper_case() for name, table in measured.items()}
    results: dict[str, dict[str, Any]] = {}
    if train.task.problem != "token":
        model = KmerRegression(k, both_strands=both_strands).fit(train, measured.get("valid"))
        theirs = {
            name: Scores.of(table, model.predict(table.sequences, table.pairs)) for name, table in measured.items()
        }
        results["kmer"] = {name: evaluate(scores, num_resamples=num_resamples) for name, scores in theirs.items()} | {
            "settings": {"k": k, "both_strands": both_strands, "penalty": model.penalty}
        }
        for name, scores in (ours or {}).items():
            metric = PRIMARY[train.task.problem]
            paired = compare_predictions([scores], [theirs[name]], metric, num_resamples=max(num_resamples, 200))
            results["kmer"][name]["paired"] = asdict(paired) | {"verdict": paired.verdict}
    majority = Majority.fit(train)
    results["majority"] = {
        name: evaluate(Scores.of(table, majority.predict(table.sequences)), num_resamples=num_resamples, curves=False)
        for name, table in measured.items()
    }
    return results
