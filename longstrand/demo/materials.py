"""What a demo is made from: its settings, and the genome and labelled tables that they lead to."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from longstrand.demo.settings import DemoConfig
from longstrand.demo.simulate import write_simulation
from longstrand.errors import InputError, UsageError
from longstrand.genome.download import fetch
from longstrand.runtime import Notice, cache_dir, read_json, write_atomically

Aside = Callable[..., Callable[[], Any]]
"""Starts ``work(*given)`` and returns how to get its result."""
PRETRAINED, RANDOM = "pre-trained", "random start"
SPLITS = {"train": ("train",), "valid": ("dev", "valid", "val"), "test": ("test",)}
SUFFIXES = (".csv", ".tsv", ".parquet", ".csv.gz", ".tsv.gz")
YEAST_TEST = ("IV", "XV")
"""Chromosomes that the shipped checkpoint never saw."""
YEAST_VALID = ("XVI",)
YEAST_LABELS = (300, 2000)


@dataclass(frozen=True)
class LabelSet:
    """Labelled tables of one task.

    Attributes:
        name: for the reader; the folder of its runs is called so.
        tables: ``train``, ``valid``, ``test``.
        training: settings of fine-tuning.
        strand: on which strand the test sequences are read.
        read_tokens: also learn from the probabilities that the language model gives to hidden tokens.
    """

    name: str
    tables: Mapping[str, Path]
    training: Mapping[str, Any]
    strand: str = "both"
    read_tokens: bool = False


@dataclass(frozen=True)
class Materials:
    """What the models are made from.

    Attributes:
        kind: ``simulated``, ``own`` or ``yeast``.
        genomes: FASTA files.
        label_sets: tasks; each is learned from the pre-trained and from a random start.
        hold_out: contigs that pre-training never sees.
        annotation: genes of the first genome, or None.
        structure: waits for the folder with a label for every base; or None.
        facts: what was planted in a simulated genome.
    """

    kind: str
    genomes: Sequence[Path]
    label_sets: Sequence[LabelSet] = ()
    hold_out: Sequence[str] = ()
    annotation: Path | None = None
    structure: Callable[[], Path] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def at_once(work: Callable[..., Any], *given: Any) -> Callable[[], Any]:
    """Do the work now; see `Aside`."""
    result = work(*given)
    return lambda: result


def gather(config: DemoConfig, notice: Notice, aside: Aside = at_once) -> Materials:
    """Simulate, download or find genome and labels; what takes long may run aside.

    Raises:
        InputError: a file is missing or wrong.
        UsageError: yeast without files and without leave to download.
    """
    if config.yeast:
        return yeast_materials(config, notice)
    return own_materials(config) if config.genome else simulated_materials(config, notice, aside)


SIMULATED_TRAINING = {"epochs": 20, "learning_rate": 1e-3, "batch_size": 16, "patience": 0, "metric": "loss"}
SIZE: dict[str, Any] = {"num_bases": 2_400_000}
QUICK_SIZE: dict[str, Any] = {"num_bases": 160_000, "num_rows": (80, 30, 100)}
QUICK_TRAINING = {"epochs": 1, "learning_rate": 1e-3, "batch_size": 16}


def simulated_materials(config: DemoConfig, notice: Notice, aside: Aside) -> Materials:
    """Simulate a genome and its labels, the same ones for every seed."""
    folder = config.output / "data"
    if not (folder / "simulation.json").exists():
        size = QUICK_SIZE if config.quick else SIZE
        notice(f"simulating a genome of {size['num_bases'] / 1e6:g} million bases")
        made = aside(partial(write_simulation, **size), folder)
        import longstrand.training.pretrain  # noqa: F401  what comes next needs it, and it takes as long

        made()
    record = read_json(folder / "simulation.json")
    training = QUICK_TRAINING if config.quick else SIMULATED_TRAINING
    enhancers = LabelSet("enhancers", find_tables(folder / "labels" / "enhancers"), training, "+", read_tokens=True)
    hold_out = (*record["valid_chroms"], *record["test_chroms"])
    structure = aside(annotation_tables, folder, record)
    genome, annotation = folder / "genome.fa", folder / "genome.gff3"
    return Materials("simulated", [genome], [enhancers], hold_out, annotation, structure, record)


def annotation_tables(folder: Path, record: Mapping[str, Any]) -> Path:
    """Write the labelled tables that the annotation of a simulated genome gives; the folder of those of every base."""
    from longstrand.benchmarks.suites.from_gtf import from_gtf

    made = folder / "labels" / "gene_structure"
    if not (made / "classes.csv").exists():  # the last file that is written
        options = {"splice_window": 80, **{name: tuple(record[name]) for name in ("valid_chroms", "test_chroms")}}
        tables = ("splice_sites", "gene_structure")
        from_gtf(folder / "genome.gff3", folder / "genome.fa", folder / "labels", tasks=tables, options=options)
    return made


def own_materials(config: DemoConfig) -> Materials:
    """Check the files of the user.

    Raises:
        InputError: a genome or a table is missing.
    """
    for path in config.genome:
        if not path.is_file():
            raise InputError(f"{path}: no such FASTA file.")
    training = QUICK_TRAINING if config.quick else {"epochs": 6, "learning_rate": 1e-3}
    sets = [] if config.labels is None else [LabelSet(config.labels.name, find_tables(config.labels), training)]
    return Materials("own", config.genome, sets)


def find_tables(folder: Path) -> dict[str, Path]:
    """Find the three tables of a folder.

    Raises:
        InputError: one is missing.
    """
    tables = {}
    for split, names in SPLITS.items():
        candidates = [folder / f"{name}{suffix}" for name in names for suffix in SUFFIXES]
        found = next((path for path in candidates if path.exists()), None)
        if found is None:
            raise InputError(
                f"{folder}: holds no {names[0]}.csv; the demo needs train.csv, dev.csv and test.csv with the "
                "columns sequence,label ('longstrand finetune' splits a single table by itself)."
            )
        tables[split] = found
    return tables


def yeast_facts() -> dict[str, str]:
    """Read addresses, release and terms of the yeast genome."""
    return tomllib.loads(Path(__file__).with_name("yeast.toml").read_text())


def yeast_materials(config: DemoConfig, notice: Notice) -> Materials:
    """Find or download the yeast genome and label the 300 bases before genes, with 300 and with 2,000 rows.

    A fifth of the labelled rows is for validation; test rows come from chromosomes IV and XV.

    Raises:
        UsageError: there are no files, and the user has not asked for a download.
        InputError: a file is missing or wrong.
    """
    from longstrand.benchmarks.suites.from_gtf import from_gtf

    facts, folder = yeast_facts(), config.output / "data"
    genome, annotation = (config.genome or (None,))[0], config.annotation
    if genome is None or annotation is None:
        offer = f"{facts['release']}\n  {facts['genome']}\n  {facts['annotation']}\n  terms: {facts['terms']}\n" \
                f"  addresses and terms: {facts['verified']}"  # fmt: skip
        notice(offer)
        if not config.download:
            raise UsageError("demo --yeast needs the yeast genome; add --download to get both files (about 4 MB), or "
                             "give --genome and --annotation.")  # fmt: skip
        genome, annotation = (
            fetch(facts[name], cache_dir() / "yeast", notice=notice) for name in ("genome", "annotation")
        )
    made = folder / "labels" / "promoters"
    if not (made / f"train_{YEAST_LABELS[-1]}.csv").exists():
        notice("labelling the 300 bases before every gene")
        options = {"before": 300, "promoter_window": 300, "valid_chroms": YEAST_VALID, "test_chroms": YEAST_TEST}
        from_gtf(annotation, genome, folder / "labels", tasks=("promoters",), options=options)
        for count in YEAST_LABELS:
            for split, rows in (("valid", count // 5), ("train", count - count // 5)):
                _thin(made / f"{split}.csv", made / f"{split}_{count}.csv", rows)
    training = {"learning_rate": 1e-3, "strand": "both", "epochs": 5}
    sets = [
        LabelSet(
            f"{count:,} labels",
            {split: made / (f"{split}_{count}.csv" if split != "test" else "test.csv") for split in SPLITS},
            {**training, "epochs": 20} if count < 1000 else training,
        )
        for count in YEAST_LABELS
    ]
    return Materials("yeast", [genome], sets, YEAST_TEST, annotation, facts=facts)


def _thin(source: Path, target: Path, num_rows: int) -> None:
    """Keep so many rows of a table, the same ones every time, as many of each class."""
    import polars as pl

    table = pl.read_csv(source, infer_schema=False)
    shares = table.partition_by("label", maintain_order=True)
    kept = [share.sample(num_rows // len(shares), seed=0) for share in shares]
    write_atomically(target, pl.concat(kept).sample(fraction=1.0, shuffle=True, seed=0).write_csv())
