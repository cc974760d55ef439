"""Turn the record of one run (its ``report.json``) into the page that a person reads.

The runs themselves write plain dictionaries; this module knows their keys and nothing of models.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from longstrand.report.sections import (
    Curves,
    Line,
    Metrics,
    Report,
    Section,
    Table,
    calibration,
    confusion,
    metric_rows,
    metric_title,
    provenance_table,
    ranking,
    text,
)
from longstrand.report.signals import looks_page, signals_sections
from longstrand.runtime import write_atomically

Record = Mapping[str, Any]
MODEL = "this model"
BASELINES = {
    "kmer": "k-mer regression", "majority": "majority class", "place": "mean by place in the window",
    "kmer-bins": "k-mer regression of bins", "cnn-basenji": "CNN, Basenji style",
}  # fmt: skip
REFERENCES = {"unigram": "token frequencies", "two_neighbour": "two neighbours"}
KNOWN = {
    "unigram": "counting: how frequent each token is",
    "left": "counting: the token before",
    "right": "counting: the token behind",
    "two_neighbour": "counting: the tokens before and behind",
    "random_unigram": "random DNA: how frequent each token is",
    "random_two_neighbour": "random DNA: the tokens before and behind",
}
"""What each reference of `longstrand.data.references.reference_losses` knows."""


def write_looks_page(folder: Path, signals: Record) -> Path:
    """Write ``tracks.html`` into a run folder: what signal tracks look like, before anything is trained."""
    from longstrand.report.page import render_html  # draws with matplotlib, which takes a moment to import

    page = Path(folder) / "tracks.html"
    write_atomically(page, render_html(looks_page(signals)))
    return page


def write_run_page(folder: Path, record: Record, rows: Sequence[Record]) -> Path:
    """Write ``report.html`` into a run folder.

    Args:
        folder: the run folder.
        record: its ``report.json``, of the kind ``pretraining`` or ``finetuning``.
        rows: its ``metrics.jsonl``.

    Returns:
        The page.

    Raises:
        ValueError: the record is of another kind.
        InputError: the folder cannot be written.
    """
    from longstrand.report.page import write_report  # draws with matplotlib, which takes a moment to import

    pages = {"pretraining": pretraining_page, "finetuning": finetuning_page}
    if record.get("kind") not in pages:
        raise ValueError(f"a run of the kind '{record.get('kind')}' has no page; known: {', '.join(pages)}.")
    model = shlex.quote(str(Path(folder) / "model"))
    commands = {
        "pretraining": [
            ("Turn sequences into vectors:", f"longstrand embed {model} sequences.fa --output vectors.parquet"),
            ("Train a classifier:", f"longstrand finetune --model {model} --train labelled.csv --output classifier"),
        ],
        "finetuning": [
            ("Predict new rows:", f"longstrand predict {model} new.csv --output predictions.csv"),
            ("Measure other labelled rows:", f"longstrand evaluate {model} labelled.csv --output evaluation"),
            ("Work with it in a browser:", f"longstrand serve {model}"),
        ],
    }
    names = ("model", "predictions_test.*", "metrics.jsonl")
    files = [path for name in names for path in sorted(Path(folder).glob(name))]
    report, next_steps = pages[record["kind"]](record, rows), commands[record["kind"]]
    return write_report(Path(folder), report, files=files, commands=next_steps, record=False)[0]


def pretraining_page(record: Record, rows: Sequence[Record]) -> Report:
    """Make the report of a pre-training run."""
    seen, unseen = record["training_bases"], record["hold_out_bases"]
    facts = [["parameters", record["parameters"]], ["optimizer steps", record["steps"]]]
    facts += [["bases read in training", record["bases_seen"]], ["tokens read in training", record["tokens_seen"]]]
    facts += [["bases in the training genomes", seen], ["bases held out", unseen]]
    facts += [["bases per token", record["bases_per_token"]]]
    facts += (
        [["share read twice an epoch, as windows overlap", record["epoch_overlap"]]]
        if "epoch_overlap" in record
        else []
    )
    held = [[name.replace("_", " "), value] for name, value in record["hold_out"].items() if isinstance(value, float)]
    explain = text("pretraining_held_out")
    parts = [
        pretraining_curve(record, rows),
        Table("On DNA that training never saw", explain, ["what", "value"], held),
        *references_table(record),
        Table("What was trained", "", ["what", "how much"], facts),
        provenance_table(record["provenance"], inputs=record["inputs"]),
    ]
    size = f"{record['parameters']:,} parameters, {record['bases_seen'] / 1e6:,.1f} million bases read"
    return Report("Pre-training", parts, size, [pretraining_sentence(record)])


def pretraining_sentence(record: Record) -> str:
    """Say what pre-training learned, measured against counting."""
    loss = record["hold_out"]["loss"]
    text = (
        f"After reading {record['bases_seen'] / 1e6:,.1f} million bases, the encoder guesses a hidden token of unseen "
        f"DNA with a loss of {loss:.2f} nats"
    )
    best = references_of(record).get("two neighbours")
    if best is None:
        return text + "."
    word = "better" if loss < best else "not better"
    return f"{text}; a table of the two true neighbours reaches {best:.2f}, so it is {word} than counting neighbours."


def references_table(record: Record) -> list[Table]:
    """List what counting and random DNA reach on the same hidden tokens."""
    found = {key: value for key, value in (record.get("references") or {}).items() if isinstance(value, Mapping)}
    rows = [[KNOWN.get(key, key), value["loss"], value.get("bits_per_base")] for key, value in found.items()]
    explain = (
        "Tables counted on the training DNA guess the same hidden tokens; on random DNA with the same bases in it, "
    )
    explain += "what remains is given away by how the tokenizer cuts."
    return [Table("What counting reaches", explain, ["what is known", "loss", "bits per base"], rows)] if rows else []


def references_of(record: Record) -> dict[str, float]:
    """Return the yardsticks of the hold-out loss that a picture can show: name to nats per token."""
    found = {}
    for key, name in REFERENCES.items():
        value = (record.get("references") or {}).get(key)
        value = value.get("loss") if isinstance(value, Mapping) else value
        if isinstance(value, int | float):
            found[name] = float(value)
    return found


def pretraining_curve(record: Record, rows: Sequence[Record]) -> Curves:
    """Make the section with the loss in training and on the hold-out."""
    lines = [_line("training", rows, "loss", "faint"), _line("unseen DNA", rows, "eval_loss", "points")]
    explain = text("pretraining_curve")
    labels = {"x_label": "training step", "y_label": "loss (nats per token)"}
    return Curves("What pre-training learned", explain, lines, references=references_of(record), **labels)


def finetuning_page(record: Record, rows: Sequence[Record]) -> Report:
    """Make the report of a fine-tuning run."""
    split = "test" if "test" in record else "valid"
    evaluations = {MODEL: [record[split]]}
    evaluations |= {BASELINES[name]: [found[split]] for name, found in record.get("baselines", {}).items()}
    main = record[split]["primary"]
    counts = record["splits"]
    values = {name: results[0]["metrics"].get(main, {}).get("value") for name, results in evaluations.items()}
    known = ", ".join(f"{name} {value:.3f}" for name, value in values.items() if _is_number(value))
    where = f"{counts[split]['num_rows']:,} {'test' if split == 'test' else 'validation'} sequences"
    explain = (
        f"All were trained on the same {counts['train']['num_rows']:,} sequences and measured on the same {where}. The "
        "bars are 95 % intervals: where the value would lie for other sequences of the same kind."
    )
    parts = [
        *evaluation_sections(evaluations, explain),
        *groups_tables(record.get("groups", {}), main),
        *errors_table(record.get("errors", [])),
        *(
            signals_sections(record["signals"], BASELINES | {"majority": "mean of the track"})
            if "signals" in record
            else ()
        ),
        learning_curve({MODEL: record}),
        rows_table(counts),
        overlap_table(record["sanity"]),
        provenance_table(record["provenance"], inputs=record["inputs"]),
    ]
    start = f"{', '.join(record['task']['columns'])}; start: {record['init']}"
    summary = [f"{metric_title(main)} on {where}: {known}.", f"Splits: {record['split_origin']}."]
    return Report("Fine-tuning", parts, start, summary, record["warnings"])


def evaluation_sections(evaluations: Mapping[str, Sequence[Record]], explain: str) -> list[Section]:
    """Make the sections on quality from evaluations of one test set: model name to one evaluation per seed.

    The first model is the one whose calls are shown in detail.
    """
    first = next(iter(evaluations.values()))[0]
    rows = [row for name, results in evaluations.items() for row in metric_rows(name, results)]
    title = "How well does each model do?"
    if not any(row.metric == first["primary"] for row in rows):
        return [Table(title, "No row could be measured: the model reads nothing of them.", ["rows"], [[0]])]
    parts: list[Section] = [Metrics(title, explain, rows, main=first["primary"])]
    seeds = max(map(len, evaluations.values()))
    return parts + answers_sections({name: results[0] for name, results in evaluations.items()}, seeds=seeds)


def answers_sections(evaluations: Mapping[str, Record], *, subject: str = "", seeds: int = 1) -> list[Section]:
    """Make the sections on single answers (ranking, calibration, right and wrong calls) of models on one test set.

    The calls are those of the first model. ``subject`` stands before the titles; of several ``seeds`` it is said that
    these answers are of the first one.
    """
    parts: list[Section] = []
    model, first = next(iter(evaluations.items()))
    drawn = {name: found for name, found in evaluations.items() if found.get("curves")}
    positive = next((name for name, curve in first.get("curves", {}).items() if curve["roc"]["fpr"]), None)
    if positive is not None and all(
        found["curves"].get(positive, {}).get("roc", {}).get("fpr") for found in drawn.values()
    ):
        parts.append(ranking(f"{subject}Ranking of the test sequences", drawn, positive=positive))
        reliable = calibration(f"{subject}Are the probabilities right?", drawn, positive=positive)
        parts += [] if reliable is None else [reliable]
    calls = first.get("confusion", {})
    if "labels" in calls:
        rates = [[name, *map(int, (table[1][1], table[1][0], table[0][1], table[0][0]))]
                 for name, table in zip(calls["labels"], calls["counts"])]  # fmt: skip
        columns = ["label", "found", "missed", "false alarms", "rightly left out"]
        parts.append(Table(f"{subject}Right and wrong calls, label by label", "", columns, rates))
    elif calls:
        parts.append(confusion(f"{subject}Right and wrong calls: {model}", calls["counts"], calls["classes"]))
    note = f" Answers of the first of {seeds} seeds; tables of metrics hold means over them." if seeds > 1 else ""
    return [replace(part, explain=f"{part.explain}{note}".strip()) for part in parts]


def errors_table(rows: Sequence[Record]) -> list[Section]:
    """List the rows that were predicted worst, as `longstrand.training.measure.worst_rows` finds them."""
    columns = list(rows[0]) if rows else []
    return [Table("The ten worst rows", text("errors"), columns, [list(row.values()) for row in rows])] if rows else []


def groups_tables(groups: Mapping[str, Mapping[str, Record]], main: str) -> list[Section]:
    """List the main metric by chromosome, GC content and group, as `longstrand.training.measure.groups_of` finds it."""
    tables: list[Section] = []
    for kind, found in groups.items():
        entries = {name: one["metrics"].get(main, {}) for name, one in found.items()}
        ends = ["low", "high"] if any("low" in entry for entry in entries.values()) else []
        rows = [[name, found[name]["num_rows"], *(entry.get(key) for key in ("value", *ends))]
                for name, entry in entries.items()]  # fmt: skip
        tables.append(Table(f"By {kind}", text("groups"), [kind, "rows", metric_title(main), *ends], rows))
    return tables


def learning_curve(records: Mapping[str, Record]) -> Curves:
    """Draw the validation metric of one or several runs, by name."""
    metric = next(iter(records.values()))["metric"]
    lines = [_line(name, record["curve"], f"eval_{metric}", "points") for name, record in records.items()]
    title = metric_title(metric)
    explain = text("learning_curve", title=title)
    return Curves("Fine-tuning, step by step", explain, lines, x_label="training step", y_label=title)


def rows_table(counts: Mapping[str, Record]) -> Table:
    """List the rows of each split: sequences, bases, unknown letters, cut sequences, tokens."""
    explain = "Cut sequences were longer than the model can read; unknown letters are N and other ambiguity codes."
    columns = ["split", "sequences", "bases", "unknown letters", "cut", "median tokens"]
    rows = [[name, split["num_rows"], split["num_bases"], split["num_unknown_letters"], split["num_truncated"],
             int(split["tokens"]["median"])] for name, split in counts.items()]  # fmt: skip
    return Table("The labelled sequences", explain, columns, rows)


def overlap_table(report: Mapping[str, Record]) -> Table:
    """List how many rows of a split are also in another one; ``report`` as `longstrand.evaluation.sanity` makes it."""
    rows = []
    for pair, found in report["across"].items():
        size, same = (
            report["splits"][pair.split()[0]]["num_rows"],
            found["num_identical"] + found["num_reverse_complement"],
        )
        rows.append([pair, size, same, found["num_near_duplicates"]])
    return Table("Do the splits overlap?", text("overlap"), ["rows of", "sequences", "the same", "near copies"], rows)


def _line(name: str, rows: Sequence[Record], key: str, style: Literal["points", "faint"]) -> Line:
    known = [row for row in rows if _is_number(row.get(key))]
    return Line(name, [row["step"] for row in known], [row[key] for row in known], style)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and value == value
