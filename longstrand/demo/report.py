"""The report of the demo: reads what the runs measured, compares the starts honestly, writes the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from longstrand.report import runs
from longstrand.report.page import write_report
from longstrand.report.sections import (
    Commands,
    Report,
    Section,
    Table,
    metric_title,
    provenance_table,
)
from longstrand.runtime import provenance

if TYPE_CHECKING:
    from longstrand.demo.run import DemoConfig, Materials

NAMES = {
    "pretrained": "pre-trained",
    "random": "random start",
    "kmer": "6-mer regression",
    "majority": "majority class",
}


@dataclass(frozen=True)
class Written:
    """The files of the report and its main sentences."""

    page: Path
    data: Path
    verdict: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """Difference of a metric between two models on the same test sequences.

    Attributes:
        value: mean over the seeds of the first minus the second.
        low: lower end of the 95 % interval over resampled test sequences.
        high: its upper end.
    """

    value: float
    low: float
    high: float


def write(
    config: DemoConfig, materials: Materials, pretrained: Any, arms: Mapping[str, Sequence[Any]], *, seconds: float
) -> Written:
    """Write ``report.html`` and ``report.json`` into the folder of the demo."""
    evaluations = collect(arms)
    difference = paired_difference(arms["pretrained"], arms["random"]) if _is_single_label(arms) else None
    verdict = [runs.pretraining_sentence(pretrained.report), *comparison_verdict(evaluations, difference)]
    parts = [
        *quality_sections(evaluations, arms),
        runs.pretraining_curve(pretrained.report, read_rows(pretrained.folder / "metrics.jsonl")),
        *overlap_sections(arms),
        *data_sections(materials),
        commands_of(config, materials),
        provenance_table(provenance(), data=pretrained.report["inputs"]),
    ]
    bases = pretrained.report["training_bases"] + pretrained.report["hold_out_bases"]
    kind = "Two simulated genomes" if materials.facts.get("simulated") else "Your genome"
    title = "From a genome to a DNA language model"
    subtitle = f"{kind}, {bases / 1e6:.1f} million bases; seed {config.seed}; made in {_duration(seconds)}"
    facts = {"kind": "demo", "difference": None if difference is None else vars(difference)}
    report = Report(title, parts, subtitle, verdict, warnings_of(config, arms), facts)
    page, data = write_report(config.output, report)
    return Written(page, data, tuple(verdict))


def collect(arms: Mapping[str, Sequence[Any]]) -> dict[str, list[dict[str, Any]]]:
    """Gather the evaluations on the test set: model name to one evaluation per seed."""
    found = {NAMES[name]: [result.report["test"] for result in results] for name, results in arms.items()}
    for name, baseline in (arms["pretrained"][0].report.get("baselines", {}) if arms else {}).items():
        found[NAMES[name]] = [baseline["test"]]
    return found


def _is_single_label(arms: Mapping[str, Sequence[Any]]) -> bool:
    return bool(arms) and arms["pretrained"][0].report["task"]["problem"] == "single_label"


def paired_difference(first: Sequence[Any], second: Sequence[Any], *, num_resamples: int = 1000) -> Difference:
    """Compare Matthews correlations of two starts on the same test sequences, averaged over their seeds.

    Test sequences are drawn with replacement, the same ones for all models, so that what is easy or hard for both
    cancels out. The interval holds for these seeds; it does not cover the choice of seeds.
    """
    from longstrand.evaluation.bootstrap import Resamples, confusion_metrics, paired_interval, sum_over_units

    groups = [[_calls(result) for result in results] for results in (first, second)]
    classes = sorted({word for group in groups for truth, calls in group for word in (*truth, *calls)})
    number = {name: place for place, name in enumerate(classes)}
    count = len(classes)
    rows = len(groups[0][0][0])

    def coefficients(calls: tuple[list[str], list[str]], weights: Any) -> Any:
        cell = np.array([number[true] * count + number[call] for true, call in zip(*calls)])
        cells = sum_over_units(np.arange(rows), cell, num_units=rows, num_cells=count**2)
        return confusion_metrics((cells.T @ weights.T).T.reshape(len(weights), count, count))["mcc"]

    def difference(weights: Any) -> Any:
        one, two = (np.mean([coefficients(calls, weights) for calls in group], axis=0) for group in groups)
        return one - two

    drawn = np.concatenate([difference(weights) for weights in Resamples(rows, num_resamples, 0).blocks()])
    seen = float(difference(np.ones((1, rows)))[0])
    return Difference(seen, *paired_interval(seen, drawn))


def _calls(result: Any) -> tuple[list[str], list[str]]:
    """Read true and called classes of the test rows."""
    import polars as pl

    frame = pl.read_csv(result.folder / "predictions_test.csv", infer_schema=False)
    return frame["label"].to_list(), [word or "?" for word in frame["predicted"].to_list()]


def comparison_verdict(evaluations: Mapping[str, Sequence[Any]], difference: Difference | None) -> list[str]:
    """Say which start found more, and whether the difference is clear."""
    if not evaluations:
        return ["No labelled sequences were given, so no classifier was trained; add --labels FOLDER."]
    metric = next(iter(evaluations.values()))[0]["primary"]
    means = {name: _mean_metric(results, metric) for name, results in evaluations.items()}
    title = metric_title(metric)
    scores = ", ".join(f"{name} {value:.3f}" for name, value in means.items() if name != NAMES["majority"])
    lines = [f"{title} on the test sequences: {scores}."]
    if difference is not None:
        size = f"{difference.value:+.3f} (95 % interval {difference.low:+.3f} to {difference.high:+.3f})"
        if difference.low > 0:
            lines.append(f"Pre-training helped: {size} against the same network from a random start.")
        elif difference.high < 0:
            lines.append(f"Pre-training did harm here: {size} against the same network from a random start.")
        else:
            lines.append(f"Pre-training made no clear difference here: {size} against a random start.")
    simple, own = means.get(NAMES["kmer"]), means[NAMES["pretrained"]]
    if simple is not None and not own > simple:
        lines.append("The 6-mer regression, which trains in seconds, is as good or better on this task: use it.")
    return lines


def _mean_metric(results: Sequence[Mapping[str, Any]], metric: str) -> float:
    return float(np.mean([result["metrics"][metric]["value"] for result in results]))


def quality_sections(evaluations: Mapping[str, list[Any]], arms: Mapping[str, Sequence[Any]]) -> list[Section]:
    """Make the sections on the labelled task; empty without labels."""
    if not evaluations:
        return []
    counts = arms["pretrained"][0].report["splits"]
    explain = (
        f"All models were trained on the same {counts['train']['num_rows']:,} sequences and measured once on the same "
        f"{counts['test']['num_rows']:,}. Dots are means over {len(arms['pretrained'])} seed(s), small rings the "
        "single seeds, bars the 95 % interval: where the value would lie for other test sequences of the same kind."
    )
    curves = {NAMES[name]: results[0].report for name, results in arms.items()}
    return [*runs.evaluation_sections(evaluations, explain), runs.learning_curve(curves)]


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Read the rows of a ``metrics.jsonl``."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def overlap_sections(arms: Mapping[str, Sequence[Any]]) -> list[Section]:
    """Count test and validation rows that the training rows hold; empty without labels."""
    if not arms:
        return []
    record = arms["pretrained"][0].report
    return [runs.overlap_table(record["leakage"], record["splits"])]


def data_sections(materials: Materials) -> list[Section]:
    """Describe what was planted in a simulated genome."""
    parts: list[Section] = []
    planted = materials.facts.get("planted")
    if planted:
        names = list(planted)
        kinds = sorted({kind for counts in planted.values() for kind in counts})
        rows = [[kind.replace("_", " "), *(planted[name].get(kind, 0) for name in names)] for kind in kinds]
        explain = (
            "The genomes are made up, so the truth is known: these signals were planted. Chromosomes "
            f"{' and '.join(materials.hold_out)} were kept from pre-training; the test sequences come from the last. "
            "The second species has diverged copies of them, which were read without labels."
        )
        table = Table("What is in the simulated genomes", explain, ["signal", *names], rows)
        parts.append(table)
    return parts


def warnings_of(config: DemoConfig, arms: Mapping[str, Sequence[Any]]) -> list[str]:
    """List what a reader must know before believing the numbers, once each."""
    found = ["This was a quick run: it shows that everything works, the numbers mean little."] if config.quick else []
    for name, results in arms.items():
        for result in results:
            found += [f"{NAMES[name]}: {sentence}" for sentence in result.report["warnings"]]
    return list(dict.fromkeys(found))


def commands_of(config: DemoConfig, materials: Materials) -> Commands:
    """Make the section that says what to try next."""
    from longstrand.demo.run import next_commands

    explain = "Run these in the folder where you started the demo."
    return Commands("What to try next", explain, next_commands(config, materials))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
