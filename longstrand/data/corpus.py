"""A corpus: a list of genomes with species, weights and hold-outs, from settings or from a file.

A corpus file is a table (TSV, CSV) or YAML (a list, or ``genomes:`` with a list) with one genome a row: ``fasta``
(beside the file, unless absolute; or an address), and optionally ``species``, ``taxon``, ``weight``, ``hold_out``.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from copy import copy
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field

from longstrand.config import StrictModel, build, load_yaml, split_words
from longstrand.data.genomes import LENGTH, ContigRules, GenomeSet, GenomeSource, Sampling, open_genomes
from longstrand.data.permutation import draw_bits, key_of
from longstrand.data.regions import HoldOuts
from longstrand.data.rows import Columns, read_records, take_column
from longstrand.data.tables import TABLES as ROW_TABLES
from longstrand.data.tables import column_names, read_table
from longstrand.data.windows import TrainingWindows
from longstrand.errors import ConfigError, InputError
from longstrand.genome.download import is_address, local_copies
from longstrand.genome.fasta import genome_name
from longstrand.genome.sequence import normalise
from longstrand.genome.text import detect_file
from longstrand.runtime import fingerprint_file, progress_bar, write_atomically

ENDINGS = (".tsv", ".csv", ".parquet")
CORPUS_FILES = (*ENDINGS, ".yaml", ".yml")
HELD_OUT = ("test", "testing", "dev", "valid", "validation", "val", "eval", "evaluation", "holdout", "heldout")
"""Words in the names of files and in columns ``split`` that say: not for training."""
WHOLE, NOTHING = "all", "none"
"""Words of ``hold_out``: the genome is measured on and never trained on; nothing of it is held out."""


def _bare(value: Any) -> Any:
    return value.strip() or None if isinstance(value, str) else value


Name = Annotated[str | None, BeforeValidator(_bare)]


class GenomeEntry(StrictModel):
    """One FASTA file, or a corpus file in its place."""

    fasta: Path = Field(
        description="FASTA file, plain or gzip, or its address (https, ftp); or a corpus file (TSV, CSV, YAML) of many"
    )
    weight: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="how often its bases are seen, relative to the others"
    )
    species: Name = Field(None, description="name in reports and hold-outs; the file's name if absent")
    taxon: Name = Field(None, description="class of the species, for data.sampling.taxa")
    hold_out: Annotated[tuple[str, ...] | None, BeforeValidator(split_words)] = Field(
        None, description="contigs with commas, all, or none; default: what data.hold_out says"
    )

    @property
    def name(self) -> str:
        """Name of the species."""
        return self.species or genome_name(self.fasta)

    @property
    def bare_name(self) -> str:
        """Name of the species as it is compared: Homo_sapiens is homo sapiens."""
        return " ".join(self.name.replace("_", " ").lower().split())

    @property
    def is_corpus(self) -> bool:
        """Whether the file is a list of genomes."""
        return self.fasta.suffix.lower() in CORPUS_FILES


def expand(entries: Sequence[GenomeEntry]) -> list[GenomeEntry]:
    """Replace corpus files by their genomes; the weight of a corpus file multiplies theirs.

    Raises:
        InputError: a file is missing or wrong; all wrong rows are named.
        ConfigError: a corpus file was given a species, a taxon or a hold-out; a species occurs twice.
    """
    found = list[GenomeEntry]()
    for entry in entries:
        if not entry.is_corpus:
            found.append(entry)
            continue
        if entry.species or entry.taxon or entry.hold_out is not None:
            raise ConfigError(f"{entry.fasta}: species, taxon and hold_out belong into the corpus file.")
        rows = read_corpus(entry.fasta)
        found += [row.model_copy(update={"weight": row.weight * entry.weight}) for row in rows]
    number_of = Counter(entry.bare_name for entry in found)
    twice = list(dict.fromkeys(entry.name for entry in found if number_of[entry.bare_name] > 1))
    if twice:
        raise ConfigError(f"data.genomes: each species is given once; two are called {_listed(twice)}.")
    return found


def read_corpus(path: Path) -> list[GenomeEntry]:
    """Read a corpus file.

    Raises:
        InputError: it is missing or no list of genomes; all wrong rows are named.
    """
    path = Path(path)
    if path.suffix.lower() in ENDINGS:
        rows: Any = [{k: v for k, v in row.items() if v not in (None, "")} for row in read_table(path).to_dicts()]
        first = 2
    else:
        rows = load_yaml(path)
        rows, first = rows.get("genomes") if isinstance(rows, dict) else rows, 1
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: a corpus is a list of genomes, each with 'fasta' and what belongs to it.")
    if first == 2 and not any("fasta" in row for row in rows):
        raise InputError(
            f"{path}: as genomes, a table is a corpus with a column 'fasta', and this one has none; "
            "pretrain reads a table of sequences with --sequences."
        )
    entries, errors = list[GenomeEntry](), list[str]()
    for number, row in enumerate(rows, first):
        try:
            entry = build(GenomeEntry, row, f"{path}:{number}")
        except ConfigError as error:
            errors.append(str(error))
            continue
        if entry.is_corpus:
            errors.append(f"{path}:{number}: a corpus holds FASTA files, not another corpus ({entry.fasta}).")
        place = entry.fasta if is_address(entry.fasta) else path.parent / entry.fasta.expanduser()
        entries.append(entry.model_copy(update={"fasta": place}))
    if errors:
        more = f" And {len(errors) - 10:,} more." if len(errors) > 10 else ""
        raise InputError(" ".join(errors[:10]) + more)
    return entries


def one_per_genus(entries: Sequence[GenomeEntry]) -> list[GenomeEntry]:
    """Keep one species of each genus (the first word of its name), by a draw that depends on the names alone."""
    chosen: dict[str, GenomeEntry] = {}
    for entry in entries:
        genus = entry.bare_name.split(" ")[0]
        kept = chosen.setdefault(genus, entry)
        if _draw(entry) < _draw(kept):
            chosen[genus] = entry
    return [entry for entry in entries if entry in chosen.values()]


def _draw(entry: GenomeEntry) -> int:
    return draw_bits(0, key_of(0, entry.name), "genus")


def open_corpus(
    entries: Sequence[GenomeEntry], *, sampling: Sampling | None = None, contigs: ContigRules | None = None
) -> GenomeSet:
    """Open the genomes of a corpus; they are indexed on first use, and copied from their addresses before.

    Raises:
        InputError: files are missing or damaged, or two hold one genome, if in other letters or with other names.
    """
    files = local_copies([entry.fasta for entry in entries])
    sources = [GenomeSource(file, entry.weight, entry.name, entry.taxon) for file, entry in zip(files, entries)]
    genomes = open_genomes(sources, unknown_run=(contigs or ContigRules()).unknown_run)
    first: dict[Hashable, int] = {}
    same = [
        f"{genomes.path(first[mark])} and {genomes.path(number)}"
        for number, mark in enumerate(_marks(genomes))
        if first.setdefault(mark, number) != number
    ]
    if same:
        raise InputError(f"data.genomes: files hold the same genome: {_listed(same)}; leave one of the two out.")
    genomes.sampling = sampling or Sampling()
    genomes.allowed = contigs.allowed(genomes) if contigs else None
    return genomes


def _marks(genomes: GenomeSet) -> Iterator[Hashable]:
    """Give what tells each genome from others: the lengths of its contigs, and if others have them, some letters.

    Letter case, the names and the order of contigs do not count: assemblies come masked and not, with chr1 and 1.
    """
    places = [slice(*genomes.first_contig[number : number + 2].tolist()) for number in range(len(genomes))]
    shapes = [np.sort(genomes.contigs[place, LENGTH]).tobytes() for place in places]
    number_of = Counter(shapes)
    for number, (place, shape) in enumerate(zip(places, shapes)):
        lengths, letters = genomes.contigs[place, LENGTH], set[str]()
        if number_of[shape] > 1:
            longest, size = int(lengths.max()), int(min(lengths.max(), 200))
            contigs = place.start + np.flatnonzero(lengths == longest)
            for start in np.linspace(0, longest - size, -(-64 // len(contigs)), dtype=int).tolist():
                letters |= {genomes.read(number, contig, start, start + size).upper() for contig in contigs.tolist()}
        yield shape, frozenset(letters)


def tokenizer_pieces(
    genomes: GenomeSet, *, num_bases: int, seed: int, holdout: HoldOuts = None, evenly: bool = False
) -> Iterator[str]:
    """Sample pieces of both strands for training a tokenizer, never more bases than there are.

    Args:
        genomes: where to read.
        num_bases: bases of all pieces together.
        seed: the same seed gives the same pieces.
        holdout: what is not read.
        evenly: as many bases of each genome (GENA-LM's second tokenizer); else each genome as often as in training.
    """
    if evenly:
        genomes = copy(genomes)
        genomes.sampling, genomes.weights = Sampling(temperature=math.inf), np.ones(len(genomes))
    length = 1_000  # BPE training takes quadratic time in the length of a piece
    pieces = TrainingWindows(
        genomes, num_bases=length, num_samples=max(1, num_bases // length), seed=seed, holdout=holdout
    )
    enough = max(1, min(num_bases, pieces.regions.num_bases) // length)
    with progress_bar("reading", total=enough * length, unit="bases") as bar:
        for window in islice(pieces, enough):
            bar.update(len(window.sequence))
            yield window.sequence


def write_sequences(paths: Sequence[Path], folder: Path, *, column: str) -> Path:
    """Write the sequences of training tables as one FASTA file, which is read like a genome; labels are not read.

    The name of the file depends on what the tables hold; if it is there already, it is left as it is.

    Raises:
        InputError: a table is missing, damaged or given twice, holds test rows, or no sequence.
    """
    if missing := [str(path) for path in paths if not path.is_file()]:
        raise InputError(f"{', '.join(missing)}: no such file; give training tables.")
    marks = [fingerprint_file(path) for path in paths if _is_training(path)]
    if twice := [str(path) for path, mark in zip(paths, marks) if marks.count(mark) > 1]:
        raise InputError(f"{', '.join(twice)}: hold the same rows; give them once.")
    target = folder / f"sequences-{hashlib.sha256(' '.join([column, *marks]).encode()).hexdigest()[:16]}.fa"
    if target.exists():
        return target
    lines = list[str]()
    for path in paths:
        for record in read_records(path, columns=Columns(sequence=column)):
            text = normalise(record.sequence, "ACGTN", where=record.where).sequence
            if text:
                lines += [f">row{len(lines) // 2 + 1} {path.name}:{record.index + 1}", text]
    if not lines:
        raise InputError(f"{', '.join(map(str, paths))}: no row has a sequence.")
    write_atomically(target, "\n".join(lines) + "\n")
    return target


def _is_training(path: Path) -> bool:
    """Refuse files that are test or validation data by their name or by their column ``split``."""
    why = "rows are for measuring, not for pre-training; give training rows"
    named = next((word for word in re.split("[^a-z]+", path.name.split(".")[0].lower()) if word in HELD_OUT), None)
    if named:
        raise InputError(f"{path}: '{named}' {why}, or rename the file if it holds no others.")
    if detect_file(path) in ROW_TABLES:
        for name in [name for name in column_names(path) if name.lower() == "split"]:
            for row, word in enumerate(take_column(read_table(path), name, path, ""), 1):
                if (word or "").lower() in HELD_OUT:
                    raise InputError(f"{path}: row {row}: '{word}' {why}.")
    return True


def _listed(items: Sequence[str], most: int = 20) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
