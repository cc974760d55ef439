"""Tasks that any annotated genome, or any folder of genomes, makes."""

from __future__ import annotations

from longstrand.benchmarks.suites.promoters import build_annotated_promoters
from longstrand.benchmarks.suites.species import build_species
from longstrand.benchmarks.suites.splice import build_splice_tokens, build_splice_windows
from longstrand.benchmarks.tasks.released import SEED
from longstrand.benchmarks.tasks.task import Option, Published, SourceFile, Task

MEMORY = "GENA-LM with recurrent memory (Kuratov et al. 2024)"
RULE = "whole contigs where there are enough, else blocks; windows across a border are left out"
ANNOTATED = (
    SourceFile("{annotation}", "any GFF3 or GTF annotation"),
    SourceFile("{fasta}", "its genome"),
)
NAMES = {
    "annotation": Option("annotation.gff3", "GFF3 or GTF, a path inside the source folder"),
    "fasta": Option("genome.fa", "genome, a path inside the source folder"),
}
CHROMS = {
    "valid_chroms": Option((), "chromosomes for validation"),
    "test_chroms": Option((), "chromosomes for the test"),
}
NEEDS = "GFF/GTF and FASTA"


def genome_tasks() -> tuple[Task, ...]:
    """Give the tasks of annotated genomes and of folders of genomes."""
    return _promoters(), _splice_sites(), _splice_tokens(), _species()


def _promoters() -> Task:
    return Task(
        id="longstrand/promoters",
        title="windows around transcription starts against windows elsewhere",
        files=ANNOTATED,
        build=build_annotated_promoters,
        split_rule=RULE,
        options={
            **NAMES,
            "window": Option(300, "bases of a window"),
            "before": Option(-1, "bases before the transcription start; -1: as EPD (249 of 300, else half)"),
            "negatives": Option("genome", "genome: GC-matched windows elsewhere; blocks, blocks12: permuted promoters"),
            "seed": SEED,
            **CHROMS,
        },
        needs=NEEDS,
    )


def _splice_sites() -> Task:
    return Task(
        id="longstrand/splice_sites",
        title="donor (2), acceptor (1) or neither (0) in the middle of a window",
        files=ANNOTATED,
        build=build_splice_windows,
        split_rule=RULE,
        options={**NAMES, "window": Option(400, "bases of a window"), "seed": SEED, **CHROMS},
        notes=("'Neither' are GT and AG places of transcripts without an annotated site.",),
        needs=NEEDS,
    )


def _splice_tokens() -> Task:
    return Task(
        id="longstrand/splice_tokens",
        title="donor (2), acceptor (1) or neither (0) for every base of genes, with context",
        files=ANNOTATED,
        build=build_splice_tokens,
        split_rule=RULE,
        kind="token",
        metric="average_precision",
        options={
            **NAMES,
            "target": Option(5000, "labelled bases of a row"),
            "context": Option(5000, "bases on both sides"),
            **CHROMS,
        },
        needs=NEEDS,
    )


def _species() -> Task:
    return Task(
        id="longstrand/species",
        title="which genome of a folder a window is from",
        files=(SourceFile("{genomes}", "any folder of FASTA files, one a species"),),
        build=build_species,
        split_rule="whole contigs where a genome has enough, else blocks",
        options={
            "genomes": Option(".", "folder of FASTA files inside the source folder"),
            "window": Option(1000, "bases of a window"),
            "per_species": Option(500, "windows of each genome, over all splits"),
            "seed": SEED,
        },
        published={
            f"RMT base, {size}": Published(score, "accuracy", MEMORY, "five mammals, code not released")
            for size, score in {"1 kb": 0.6145, "32 kb": 0.9924, "50 kb": 0.9967}.items()
        },
        notes=("Published numbers are of five mammals; yours depend on your genomes.",),
        needs="a folder of FASTA files",
    )
