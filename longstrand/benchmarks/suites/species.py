"""Which species a stretch of DNA is from: a folder of FASTA files, held-out contigs or blocks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from longstrand.benchmarks.tasks.build import source_paths, write_task
from longstrand.benchmarks.tasks.task import SPLITS, BenchmarkTask, TaskData
from longstrand.data.labelled_files import make_rows
from longstrand.data.places import BLOCKS, choose_contigs
from longstrand.errors import InputError
from longstrand.genome.fasta import Genome
from longstrand.runtime import generator

FASTA_ENDINGS = (".fa", ".fasta", ".fna", ".fa.gz", ".fasta.gz", ".fna.gz")
SHARES = {"train": 0.7, "valid": 0.1, "test": 0.2}


def build_species(task: BenchmarkTask, sources: Path, output: Path, options: Mapping[str, Any]) -> TaskData:
    """Build windows of ``window`` bases from every genome of a folder, ``per_species`` of each, labelled by file name.

    Windows hold no N, are drawn evenly over the allowed stretches of their split and do not overlap each other. Whole
    contigs are held out where a genome has at least five and none holds more than half of it; else blocks.

    Raises:
        InputError: there are less than two genomes, or one has no room for its windows.
    """
    (folder,) = source_paths(task, sources, options)
    paths = sorted(path for path in folder.iterdir() if path.name.endswith(FASTA_ENDINGS))
    if len(paths) < 2:
        raise InputError(f"{folder}: {len(paths)} FASTA file(s); telling species apart needs at least two genomes.")
    columns: dict[str, dict[str, list[str]]] = {name: {"sequence": [], "label": [], "name": []} for name in SPLITS}
    rules = []
    for number, path in enumerate(paths):
        genome = Genome(path)
        stretches, rule = allowed_stretches(genome, options["window"])
        rules.append(f"{genome.name}: {rule}")
        for name, share in SHARES.items():
            count = round(share * options["per_species"])
            random = generator(options["seed"], number, f"species {name}")
            for chrom, start in draw_windows(
                stretches[name], options["window"], count, random, where=f"{path} ({name})"
            ):
                end = start + options["window"]
                columns[name]["sequence"].append(genome.fetch(chrom, start, end))
                columns[name]["label"].append(genome.name)
                columns[name]["name"].append(f"{genome.name}:{chrom}:{start + 1}-{end}")
    tables = {
        name: make_rows(held["sequence"], {"label": held["label"]}, source=folder, names=held["name"])
        for name, held in columns.items()
    }
    return write_task(task, output, tables, options, sources=paths, origin="; ".join(rules))


def allowed_stretches(genome: Genome, window: int) -> tuple[dict[str, list[tuple[str, int, int]]], str]:
    """Give the stretches without N of each split, and the rule in words."""
    contigs = {name: length for name, length in genome.contigs.items() if length >= window}
    if len(contigs) >= 5 and max(contigs.values()) <= sum(contigs.values()) / 2:
        valid, test = choose_contigs(contigs)
        where = {**dict.fromkeys(valid, "valid"), **dict.fromkeys(test, "test")}
        blocks = [(name, 0, length, where.get(name, "train")) for name, length in contigs.items()]
        rule = f"{len(valid)} contig(s) for validation, {len(test)} for the test"
    else:
        blocks = [block for name, length in contigs.items() for block in _cut_blocks(name, length, window)]
        rule = "blocks of each contig, of every ten one for validation and two for the test"
    found: dict[str, list[tuple[str, int, int]]] = {name: [] for name in SPLITS}
    for chrom, first, last, split in blocks:
        for start, end in genome.non_n_runs(chrom, window):
            start, end = max(start, first), min(end, last)
            if end - start >= window:
                found[split].append((chrom, start, end))
    return found, rule


def _cut_blocks(name: str, length: int, window: int) -> list[tuple[str, int, int, str]]:
    size = max(length // 30, 4 * window)
    return [
        (name, start, min(start + size, length), BLOCKS[number % len(BLOCKS)])
        for number, start in enumerate(range(0, length, size))
    ]


def draw_windows(
    stretches: list[tuple[str, int, int]], window: int, count: int, random: np.random.Generator, *, where: str
) -> list[tuple[str, int]]:
    """Draw ``count`` windows that do not overlap, evenly over the stretches: (chrom, start), sorted.

    Every stretch is tiled from a random offset, and tiles are drawn without replacement.

    Raises:
        InputError: there is no room for that many.
    """
    tiles = []
    for chrom, start, end in stretches:
        spare = (end - start) % window
        first = start + int(random.integers(0, spare + 1))
        tiles += [(chrom, place) for place in range(first, end - window + 1, window)]
    if len(tiles) < count:
        raise InputError(
            f"{where}: room for {len(tiles):,} windows of {window:,} bases where {count:,} are asked for; "
            "set per_species lower or window shorter."
        )
    return sorted(tiles[place] for place in random.permutation(len(tiles))[:count].tolist())
