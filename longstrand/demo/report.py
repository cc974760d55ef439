"""The report of the demo: DNA first, then what each model is worth, compared by the paired test."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from longstrand.demo.materials import PRETRAINED, DemoConfig, LabelSet, Materials
from longstrand.evaluation.compare import PairedDifference, compare_predictions
from longstrand.evaluation.metrics import Scores, evaluate
from longstrand.genome.annotation import read_annotation, transcripts
from longstrand.genome.fasta import Genome
from longstrand.genome.features import Feature
from longstrand.genome.intervals import Interval
from longstrand.inference.verbs import predict, predict_bases
from longstrand.models.checkpoint import load_model
from longstrand.questions.bases import base_probabilities
from longstrand.report import runs
from longstrand.report.locus import Genes, Locus, Logo, Marks, Ruler, Track
from longstrand.report.page import write_report
from longstrand.report.sections import Commands, Report, Section, Table, metric_title, provenance_table
from longstrand.runtime import provenance

AROUND = 24
"""Bases beside a planted pair of motifs in the picture."""

STEP = 50
"""Bases between two windows of the track along a chromosome."""


@dataclass(frozen=True)
class Comparison:
    """Models on the same test rows.

    Attributes:
        labels: the task.
        evaluations: model name to what `evaluate` returns.
        differences: model name to the first model minus this one.
        records: reports of the two fine-tuned models.
    """

    labels: LabelSet
    evaluations: Mapping[str, Mapping[str, Any]]
    differences: Mapping[str, PairedDifference]
    records: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, labels: LabelSet, scores: Mapping[str, Scores], records: Mapping[str, Mapping[str, Any]]) -> Comparison:
        """Measure, and compare the first model with the others."""
        found = {name: evaluate(values) for name, values in scores.items()}
        first, *others = (name for name in scores if name != "majority class")
        metric = found[first]["primary"]
        pairs = {name: compare_predictions([scores[first]], [scores[name]], metric) for name in others}
        return cls(labels, found, pairs, records)

    @property
    def metric(self) -> str:
        """The metric that models are compared by."""
        return str(next(iter(self.evaluations.values()))["primary"])


def write(
    config: DemoConfig,
    materials: Materials,
    model: Path,
    pretrained: Any,
    comparisons: Sequence[Comparison],
    structure: Any,
    *,
    seconds: float,
) -> tuple[Path, Path, tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Write ``report.html`` and ``report.json`` into the folder of the demo.

    Returns:
        The two files, the main sentences, and what to try next.
    """
    verdict = [sentence for item in comparisons for sentence in sentences(item)]
    if not comparisons:
        verdict.append("No labelled sequences were given, so no classifier was trained; add --labels FOLDER.")
    verdict += [] if pretrained is None else [runs.pretraining_sentence(pretrained.report)]
    verdict += origin(materials)
    commands = next_commands(config, materials, model)
    parts: list[Section] = [*pictures(config, materials, model, structure)]
    for item in comparisons:
        parts += quality(item)
    if structure is not None:
        parts.append(per_class(structure.report["test"]))
    if pretrained is not None:
        rows = [json.loads(line) for line in (pretrained.folder / "metrics.jsonl").read_text().splitlines()]
        parts.append(runs.pretraining_curve(pretrained.report, rows))
    parts += planted(materials)
    parts += [Commands("What to try next", "Run these in the folder where you started the demo.", commands)]
    parts.append(provenance_table(provenance(), data={} if pretrained is None else pretrained.report["inputs"]))
    kind = {"simulated": "A simulated genome", "yeast": "The yeast genome"}.get(materials.kind, "Your genome")
    subtitle = f"{kind}; seed {config.seed}; made in {seconds / 60:.1f} minutes"
    pairs = {item.labels.name: {name: vars(pair) for name, pair in item.differences.items()} for item in comparisons}
    facts = {"kind": "demo", "differences": pairs}
    found = Report(
        "From a genome to a DNA language model", parts, subtitle, verdict, warnings_of(config, comparisons), facts
    )
    made = [path for path in (config.output / "data", model) if path.exists() and config.output in path.parents]
    page, data = write_report(config.output, found, files=made)
    return page, data, tuple(verdict), tuple(commands)


def sentences(item: Comparison) -> list[str]:
    """Say what each model reached, and which differences the paired test confirms."""
    title, name = metric_title(item.metric), item.labels.name.capitalize()
    values = {model: found["metrics"][item.metric]["value"] for model, found in item.evaluations.items()}
    shown = ", ".join(f"{model} {value:.3f}" for model, value in values.items() if model != "majority class")
    scale = " (1: every answer is right, 0: guessing)" if item.metric == "mcc" else ""
    lines = [f"{name}: {title} on the test sequences{scale}: {shown}."]
    words = {"better": [], "worse": [], "unclear": []}  # type: dict[str, list[str]]
    for model, pair in item.differences.items():
        size = "" if pair.low is None else f" ({pair.difference:+.3f})"
        words[pair.verdict].append(f"{model}{size}")
    for verdict, text in (
        ("better", "is better than"),
        ("worse", "is worse than"),
        ("unclear", "does not clearly differ from"),
    ):
        if words[verdict]:
            lines.append(f"{name}: {next(iter(values))} {text} {'; '.join(words[verdict])}.")
    return lines


def origin(materials: Materials) -> list[str]:
    """Say where the data come from and what they cannot show."""
    if materials.kind == "simulated":
        return [
            "Genome and grammar (pairs of motifs at one spacing) are made up, so that the right answer is known.",
            "On real genomes, small models gain less and a 6-mer regression often wins: see docs/BENCHMARK.md.",
        ]
    if materials.kind == "yeast":
        return ["The test sequences lie on chromosomes IV and XV, which the shipped checkpoint never saw."]
    return []


def quality(item: Comparison) -> list[Section]:
    """Make the sections on one task."""
    counts = item.records[PRETRAINED]["splits"]
    explain = (
        f"All models learned from the same {counts['train']['num_rows']:,} sequences ({counts['valid']['num_rows']:,} "
        f"more for validation) and were measured once on the same {counts['test']['num_rows']:,}. One training each; "
        "bars are the 95 % interval: where the value would lie for other test sequences of the same kind."
    )
    parts = runs.evaluation_sections({name: [found] for name, found in item.evaluations.items()}, explain)
    rows = [
        [name, pair.difference, pair.low, pair.high, pair.p, pair.verdict] for name, pair in item.differences.items()
    ]
    columns = [f"{next(iter(item.evaluations))} minus", "difference", "low", "high", "p", "it is"]
    why = f"{metric_title(item.metric)}, paired on the same test sequences; p is of a paired permutation test."
    parts += [Table("Is the difference real?", why, columns, rows), runs.learning_curve(item.records)]
    return [replace(part, title=f"{item.labels.name.capitalize()}: {part.title}") for part in parts]


def per_class(found: Mapping[str, Any]) -> Section:
    """List how well each class of gene structure is found, base by base."""
    names = list(next(iter(found["per_class"].values())))
    rows = [[name, *(values[key] for key in names)] for name, values in found["per_class"].items()]
    value = found["metrics"][found["primary"]]
    explain = (
        f"{metric_title(found['primary'])} over all test bases {value['value']:.3f} ({value['low']:.3f} to "
        f"{value['high']:.3f}), after a minute of training."
    )
    return Table("Gene structure, base by base", explain, ["class", *(name.replace("_", " ") for name in names)], rows)


def pictures(config: DemoConfig, materials: Materials, model: Path, structure: Any) -> list[Section]:
    """Draw DNA: what the model expects at each base, and genes as it sees them."""
    genome = Genome(materials.genomes[0])
    expects = load_model(model, head="masked_lm")
    if materials.kind == "simulated" and materials.annotation is not None:
        chrom = str(materials.facts["test_chroms"][0])
        features = read_annotation(materials.annotation, chroms=[chrom])
        parts = [expectation(expects, genome, features, kind) for kind in ("enhancer", "decoy")]
        return [*parts, gene_track(genome, features, structure)]
    chrom = materials.hold_out[0] if materials.hold_out else next(iter(genome.contigs))
    middle = genome.contigs[chrom] // 2
    place = Interval(chrom, middle - 50, middle + 50)
    text = genome.fetch_interval(place).upper()
    logo = Logo(base_probabilities(expects, text), "expected")
    parts = [Locus("What the model expects at each base", EXPECTED, [Ruler(text, "sequence"), logo], place)]
    if materials.kind == "yeast" and materials.annotation is not None:
        folder = config.output / "finetuned" / materials.label_sets[-1].name.replace(" ", "_").replace(",", "")
        features = read_annotation(materials.annotation, chroms=[chrom])
        parts.insert(0, promoter_track(genome, features, chrom, folder / "pretrained" / "model"))
    return parts


EXPECTED = (
    "Each token in turn is hidden, and the model guesses its bases from the sequence around it: tall letters are what "
    "it is sure of (2 bits: certain, 0: no idea)."
)


def expectation(model: Any, genome: Genome, features: Sequence[Feature], kind: str) -> Section:
    """Draw what the model expects around the first enhancer or decoy."""
    whole = next(x for x in features if x.kind == kind and x.strand == "+")
    motifs = [x for x in features if x.parent == whole.name]
    place = Interval(whole.chrom, whole.start - AROUND, whole.end + AROUND)
    text = genome.fetch_interval(place).upper()
    marks = Marks([x.interval for x in motifs], name="planted")
    logo = Logo(base_probabilities(model, text), "expected")
    titles = {
        "enhancer": "An enhancer: three pairs of motifs, as planted",
        "decoy": "A decoy: the same motifs, arranged in other ways",
    }
    more = {"enhancer": "", "decoy": " Letters beside the planted motifs show where it would expect them."}
    return Locus(titles[kind], EXPECTED + more[kind], [Ruler(text, "sequence"), marks, logo], place)


def gene_track(genome: Genome, features: Sequence[Feature], structure: Any) -> Section:
    """Draw the gene of the forward strand with the most introns, and what the fine-tuned model calls each base."""
    genes = [x for x in transcripts(features) if x.strand == "+"]
    gene = max(genes, key=lambda item: (len(item.exons), item.start))
    place = Interval(gene.chrom, gene.start - 200, gene.end + 200)
    windows = [
        genome.fetch(gene.chrom, start, min(start + 512, place.end)) for start in range(place.start, place.end, 512)
    ]
    values = np.concatenate(predict_bases(structure.model, windows))
    names = structure.report["task"]["names"]
    shown = [names.index(name) for name in ("coding", "intron", "untranslated")]
    track = Track(values[:, shown], "probability", labels=[names[number] for number in shown], limits=(0, 1))
    explain = (
        "The gene as planted, and what a model that learned from labels for every base makes of the sequence alone."
    )
    return Locus("A gene of the test chromosome", explain, [Genes(inside(features, place)), track], place)


def promoter_track(genome: Genome, features: Sequence[Feature], chrom: str, folder: Path) -> Section:
    """Draw genes of 12,000 bases and how much each place looks like the 300 bases before a gene."""
    middle = genome.contigs[chrom] // 2
    place = Interval(chrom, middle, middle + 12_000)
    windows = [genome.fetch(chrom, start - 150, start + 150) for start in range(place.start, place.end, STEP)]
    values = predict(folder, windows, strand="both")[:, -1]
    track = Track(values, "looks like a promoter", "fill", bin_size=STEP, limits=(0, 1))
    explain = "Windows of 300 bases, read by the model fine-tuned with the most labels; it knows no gene here."
    return Locus(f"Chromosome {chrom}, which no model saw", explain, [Genes(inside(features, place)), track], place)


def inside(features: Sequence[Feature], place: Interval) -> list[Feature]:
    """Keep the features that overlap a place."""
    return [x for x in features if x.chrom == place.chrom and x.start < place.end and x.end > place.start]


def planted(materials: Materials) -> list[Section]:
    """List what was planted in a simulated genome."""
    counts = materials.facts.get("planted") if materials.kind == "simulated" else None
    if not counts:
        return []
    explain = (
        f"Chromosomes {' and '.join(materials.hold_out)} were kept from pre-training; test sequences are of the last."
    )
    rows = [[kind.replace("_", " "), count] for kind, count in sorted(counts.items())]
    return [Table("What is in the simulated genome", explain, ["signal", "number"], rows)]


def warnings_of(config: DemoConfig, comparisons: Sequence[Comparison]) -> list[str]:
    """List what a reader must know before believing the numbers, once each."""
    found = ["This was a quick run: it shows that everything works, the numbers mean little."] if config.quick else []
    for item in comparisons:
        pretrained = item.records[PRETRAINED]  # a random start that learns nothing is what the comparison is for
        found += [f"{PRETRAINED}, fine-tuned: {sentence}" for sentence in pretrained["warnings"]]
    return list(dict.fromkeys(found))


def next_commands(config: DemoConfig, materials: Materials, model: Path) -> list[tuple[str, str]]:
    """List what to try next, as commands that work as they stand (the last ones after putting in your files)."""
    commands = [("See what the pre-trained model is:", f"longstrand info {model}")]
    for labels in materials.label_sets[:1]:
        test = labels.tables["test"]
        vectors = config.output / "vectors.parquet"
        commands.append(("Turn sequences into vectors for your own analysis:",
                         f"longstrand embed {model} {test} --output {vectors}"))  # fmt: skip
    if materials.kind == "simulated":
        sites = config.output / "data" / "labels" / "splice_sites"
        commands.append(("Find splice sites in the same genome:",
                         f"longstrand finetune --model {model} --train {sites}/train.csv --valid {sites}/valid.csv "
                         f"--test {sites}/test.csv --output {config.output}/splice_sites"))  # fmt: skip
    return [
        *commands,
        ("Make labelled tables from your annotation:", "longstrand data from-gtf GENES.gtf GENOME.fa --output labels"),
        ("Do the same with your genome and labels (folder with train.csv, dev.csv, test.csv; sequence,label):",
         "longstrand demo --genome GENOME.fa --labels FOLDER --output my_demo"),
        *([] if materials.kind == "yeast" else
          [("The same on the real yeast genome:", "longstrand demo --yeast --output yeast_demo")]),
    ]  # fmt: skip
