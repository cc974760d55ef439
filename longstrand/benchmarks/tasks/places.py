"""Windows with labels of an annotated genome, split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longstrand.data.labelled_files import RawTable, make_rows
from longstrand.data.places import split_windows, take_splits
from longstrand.genome.annotation import Transcript, read_annotation, transcripts
from longstrand.genome.fasta import Genome
from longstrand.genome.features import Feature
from longstrand.genome.intervals import Interval


@dataclass(frozen=True)
class AnnotatedGenome:
    """A genome and its annotation (GTF or GFF3), which was read once.

    Attributes:
        annotation: its file.
        fasta: file of the genome.
        genome: the open genome.
        features: all of the annotation, in its order.
        transcripts: made of the features, sorted by place.
    """

    annotation: Path
    fasta: Path
    genome: Genome
    features: list[Feature]
    transcripts: list[Transcript]

    @classmethod
    def open(cls, annotation: Path, fasta: Path) -> AnnotatedGenome:
        """Open a genome and read its annotation.

        Raises:
            InputError: a file is wrong, or the files do not fit together.
        """
        genome = Genome(fasta)
        features = read_annotation(annotation, contigs=genome.contigs)
        genome.check_chroms({item.chrom for item in features}, where=str(annotation))
        return cls(Path(annotation), Path(fasta), genome, features, transcripts(features))


def split_rows(
    windows: Sequence[Interval],
    sequences: Sequence[str],
    labels: Sequence[str],
    contigs: Mapping[str, int],
    options: Mapping[str, Any],
    *,
    source: Path,
    names: Sequence[str] | None = None,
) -> tuple[dict[str, RawTable], str]:
    """Put windows with a label each into splits, as `split_windows` and `take_splits` say.

    Args:
        windows: n places.
        sequences: n texts.
        labels: n labels.
        contigs: lengths of the contigs.
        options: ``valid_chroms`` and ``test_chroms``.
        source: where the rows come from.
        names: n names; None: the places.

    Returns:
        ``train``, ``valid`` and ``test``, and the split rule as a sentence.
    """
    words, rule = split_windows(
        windows, contigs, valid_chroms=options["valid_chroms"], test_chroms=options["test_chroms"]
    )
    rows = make_rows(
        sequences,
        {"label": labels},
        source=source,
        names=names or list(map(str, windows)),
        chroms=[window.chrom for window in windows],
    )
    tables, copies = take_splits(rows, words)
    return tables, rule + copies
