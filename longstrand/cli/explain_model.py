"""The commands of ``longstrand explain`` about what a language model knows; see `longstrand.cli.explain`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longstrand.cli.options import JsonOption, QuietOption, new_app, numbers, show_result
from longstrand.errors import UsageError

if TYPE_CHECKING:
    from longstrand.data.rows import Record
    from longstrand.explain.elements import Elements
    from longstrand.models.network import Network

model_app = new_app()

ModelArgument = Annotated[str, typer.Argument(help="Model: folder, name or hub id.", show_default=False)]
RowsArgument = Annotated[str, typer.Argument(help="FASTA, table, or intervals with --genome.", show_default=False)]
FolderOption = Annotated[Path, typer.Option("--output", "-o", help="Folder to write.", show_default=False)]
GenomeOption = Annotated[Path | None, typer.Option("--genome", "--fasta", help="Genome of intervals and elements.")]
ElementsOption = Annotated[Path | None, typer.Option(help="Annotation: GFF, GTF, BED (kinds are names) or table.")]
KindsOption = Annotated[str | None, typer.Option("--kind", help="Kinds of elements, with commas; all.")]
WindowOption = Annotated[int | None, typer.Option(min=1, help="Bases around the middle of each interval.")]
MapOption = Annotated[str, typer.Option("--map", help="Picture of the vectors: pca, tsne or umap (an extra).")]
LayerOption = Annotated[int, typer.Option(help="Layer; 0 = embedding output, -1 = last.")]


def _rows(source: str, genome: Path | None, window: int | None) -> list[Record]:
    """Read rows; with a window, their places are those of the windows."""
    from longstrand.errors import InputError
    from longstrand.explain.maps import place_of
    from longstrand.genome.intervals import Interval
    from longstrand.genome.sequence import has_letters, normalise
    from longstrand.inference.options import FileOptions
    from longstrand.inference.sequences import as_records

    rows, placed = list(as_records(source, genome=genome, options=FileOptions.model_validate({"window": window}))), []
    if not any(has_letters(row.sequence) for row in rows):
        raise InputError(f"{source}: no row has an A, C, G or T.")
    for row in rows:
        normalise(row.sequence, where=row.where or row.name)  # a letter that is no nucleotide
        place = place_of(row, window)
        if place is not None and place.start < 0:
            raise InputError(f"{row.where}: the window of {window} bases begins before its contig; use a shorter one.")
        placed.append(replace(row, interval=place and Interval(*place)))
    return placed


def _elements(
    path: Path | None, genome: Path | None, kinds: str | None, sequences: str, window: int | None
) -> tuple[list[Record], Elements]:
    """Read rows, and an annotation of which something lies on one."""
    from longstrand.errors import InputError
    from longstrand.explain.elements import place_of, read_elements
    from longstrand.inference.sequences import open_genome

    if path is None or genome is None:
        raise UsageError("elements need --elements ANNOTATION and --genome GENOME.fa, which they lie on.")
    rows = _rows(sequences, genome, window)
    found = read_elements(path, open_genome(genome), kinds.split(",") if kinds else ())
    if not any(found.marks(kind, place_of(row)).any() for row in rows for kind in found.kinds):
        raise InputError(f"{path}: no element lies on a row of {sequences}.")
    return rows, found


def _open(model: str, rows: list[Record]) -> Network:
    """Open a model that can read all rows."""
    from longstrand.inference.loaded import open_model
    from longstrand.questions.tokens import read_text

    network = open_model(model).network
    for row in rows:
        read_text(network, row.sequence, row.where or row.name)
    return network


def _done(page: Path, as_json: bool, quiet: bool) -> None:
    show_result({"report": str(page)}, [f"wrote {page}"], [], as_json=as_json, quiet=quiet)


@model_app.command()
def reconstruction(
    model: ModelArgument, sequences: RowsArgument, output: FolderOption, genome: GenomeOption = None,
    elements: ElementsOption = None, kind: KindsOption = None, window: WindowOption = None,
    mask: Annotated[str, typer.Option(help="share (15 % of the tokens) or central (the middle one).")] = "share",
    seed: Annotated[int | None, typer.Option(help="Draws the tokens of share; 0.", show_default=False)] = None,
    json: JsonOption = False, quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Mask tokens and read them back: accuracy and perplexity of a masked LM, by kind of element."""
    from longstrand.explain.elements import by_element, reconstruct
    from longstrand.explain.model_pages import reconstruction_page

    places = None
    if elements is None and kind is None:
        rows = _rows(sequences, genome, window)
    else:
        rows, places = _elements(elements, genome, kind, sequences, window)
    network = _open(model, rows)
    tokens = reconstruct(network, rows, elements=places, mask=mask, seed=seed)
    summary = by_element(tokens, places.kinds if places else [])
    size = len(network.require_tokenizer().vocab)
    _done(reconstruction_page(output, Path(model).name, tokens, summary, size), json, quiet)


@model_app.command()
def attention(
    model: ModelArgument, sequences: RowsArgument, output: FolderOption, genome: GenomeOption = None,
    elements: ElementsOption = None, kind: KindsOption = None, window: WindowOption = None,
    mu: Annotated[float, typer.Option(min=0, max=1, help="Attention above which a pair of tokens is an arc.")] = 0.3,
    json: JsonOption = False, quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Say which heads point at elements: share of arcs, the published z, and a null that holds, layer by layer."""
    from longstrand.explain.attention import attention_by_element
    from longstrand.explain.elements import place_of
    from longstrand.explain.model_pages import attention_examples, attention_page

    rows, places = _elements(elements, genome, kind, sequences, window)
    network = _open(model, rows)
    tables = {
        name: attention_by_element(network, ((row.sequence, places.marks(name, place_of(row))) for row in rows), mu=mu)
        for name in places.kinds
    }
    examples = attention_examples(network, rows, places, tables, mu)
    _done(attention_page(output, Path(model).name, tables, mu, examples), json, quiet)


@model_app.command()
def dependency(
    model: ModelArgument, sequences: RowsArgument, output: FolderOption, genome: GenomeOption = None,
    row: Annotated[int, typer.Option(min=1, help="Row of the sequences to map (from 1).")] = 1,
    window: WindowOption = None,
    masked: Annotated[bool, typer.Option("--masked", help="Mask the base looked at: 3 L x L passes.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Keep every odds ratio (L x 4 x L x 4) in map.npz.")] = False,
    shuffles: Annotated[int, typer.Option(min=0, help="Shuffled sequences for the cut-off; 0: none.")] = 3,
    json: JsonOption = False, quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Map which bases the expectation at each base depends on, with what chance gives."""
    from longstrand.explain.dependency import dependency_map, null_cut_off
    from longstrand.explain.model_pages import dependency_page
    from longstrand.genome.intervals import Interval

    rows = _rows(sequences, genome, window)
    if row > len(rows):
        raise UsageError(f"{sequences} has {len(rows)} rows, so there is no row {row}.")
    record = rows[row - 1]
    network = _open(model, [record])
    if masked and shuffles:
        raise UsageError("--masked maps have no cut-off (too many passes); add --shuffles 0.")
    found = dependency_map(network, record.sequence, masked=masked, keep_raw=raw)
    cut_off = null_cut_off(network, record.sequence, shuffles=shuffles) if shuffles else None
    own = record.interval
    place = Interval(record.name or "sequence", 0, record.num_bases) if own is None or own.strand == "-" else own
    _done(dependency_page(output, Path(model).name, found, cut_off, place, raw=raw), json, quiet)


@model_app.command("elements")
def elements_command(
    model: ModelArgument, sequences: RowsArgument, output: FolderOption, genome: GenomeOption = None,
    elements: ElementsOption = None, kind: KindsOption = None, window: WindowOption = None, layer: LayerOption = -1,
    map: MapOption = "pca",
    seed: Annotated[int, typer.Option(help="Draws the places of the control.")] = 0,
    json: JsonOption = False, quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Say whether embeddings tell kinds of elements apart, beside moved places and 6-mers."""
    import polars as pl

    from longstrand.explain.embeddings import check_map, coordinates, element_vectors, separation
    from longstrand.explain.model_pages import separation_page

    check_map(map)

    rows, places = _elements(elements, genome, kind, sequences, window)
    network = _open(model, rows)
    found = element_vectors(network, rows, places, layer=layer, seed=seed)
    table = separation(found.features, found.labels, found.groups)
    points = coordinates(found.features["model"], map, seed=seed)
    frame = pl.DataFrame({"element": found.labels, "chrom": found.groups, "x": points[:, 0], "y": points[:, 1]})
    _done(separation_page(output, Path(model).name, table, frame, map), json, quiet)


@model_app.command()
def species(
    model: ModelArgument,
    table: Annotated[Path, typer.Argument(help="Table of sequences and labels (species).", show_default=False)],
    output: FolderOption,
    label: Annotated[str, typer.Option(help="Column with the species.")] = "label",
    group: Annotated[str | None, typer.Option(help="Column of what must stay in one fold (chromosome, place).")] = None,
    layers: Annotated[str, typer.Option(help="Layers, with commas; -1 = last.")] = "-1",
    pooling: Annotated[str, typer.Option(help="mean or cls.")] = "mean",
    length: Annotated[int | None, typer.Option(min=1, help="Use so many bases of each sequence; all.")] = None,
    map: MapOption = "pca",
    seed: Annotated[int, typer.Option(help="Of folds and boosting.")] = 0,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Tell every pair of species apart by gradient boosting on embeddings, beside 6-mers (GENA-LM, figure 4)."""
    import numpy as np
    import polars as pl

    from longstrand.data.labelled_files import LabelColumns, read_labelled
    from longstrand.data.targets import canonical, infer_task
    from longstrand.explain.embeddings import check_map, coordinates, kmer_frequencies, pairs
    from longstrand.explain.model_pages import species_page
    from longstrand.inference.loaded import open_model
    from longstrand.inference.verbs import embed

    check_map(map)
    network = open_model(model).network
    rows = read_labelled(table, LabelColumns(labels=(label,), name=group), alphabet=None)
    infer_task(rows, problem="single_label")  # refuses missing labels
    names = [canonical(name or "") for name in rows.labels[label]]
    sequences = [text[:length] for text in rows.sequences]
    features = {
        f"layer {layer}": np.asarray(embed(network, sequences, pooling=pooling, layer=layer))
        for layer in numbers(layers)
    }
    if (missing := np.isnan(next(iter(features.values()))).any(1)).any():
        raise UsageError(f"{table}, row {missing.argmax() + 1}: nothing of its sequence is a token; leave it out.")
    points = coordinates(next(reversed(features.values())), map, seed=seed)
    shown = pl.DataFrame({"species": names, "x": points[:, 0], "y": points[:, 1]})
    features |= {"6-mers": kmer_frequencies(sequences, both_strands=False)}
    tests = pairs(features, names, rows.names, seed=seed)
    _done(species_page(output, Path(model).name, tests, shown, map), json, quiet)
