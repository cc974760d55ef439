"""``longstrand motifs``: find motifs in sequences, compare them, discover them, and ask a model about them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longstrand.cli.options import GenomeOption, JsonOption, QuietOption, new_app, show_result
from longstrand.errors import InputError, SequenceError, UsageError, one_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl

    from longstrand.data.rows import Record
    from longstrand.explain.motifs import Motif
    from longstrand.questions.scores import Score

app = new_app(no_args_is_help=True, help="Scan for motifs, compare and discover them, ask a model about them.")

SequencesArgument = Annotated[
    str, typer.Argument(help="FASTA, a table with a sequence column, or intervals with --genome.", show_default=False)
]
ENDINGS = (".tsv", ".csv", ".parquet", ".bed")
MotifsArgument = Annotated[Path, typer.Argument(help="Motifs: MEME, JASPAR or TRANSFAC file.", show_default=False)]
WIDTH = 15


def a_table(path: Path) -> Path:
    """Refuse an output that is no table, before anything is computed."""
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"{path}: a table is written as {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}; choose one.")
    return path


TableOption = Annotated[
    Path, typer.Option("--output", "-o", help="Table: .tsv, .csv, .parquet, .bed", show_default=False, callback=a_table)
]
MotifOption = Annotated[str | None, typer.Option("--motif", help="Names of the motifs to use, with commas; all.")]
BackgroundOption = Annotated[
    str, typer.Option(help="Of p values: nrdb (FIMO's), uniform, input (the sequences'), or A,C,G,T as numbers.")
]


def chosen_motifs(path: Path, names: str | None) -> list[Motif]:
    """Read motifs and keep those that are named."""
    from longstrand.explain.motifs import choose, read_motifs

    motifs = read_motifs(path)
    return motifs if names is None else choose(motifs, names.split(","))


def records_of(source: str, genome: Path | None) -> Iterator[Record]:
    """Read what a user calls sequences, in the letters A, C, G, T and N.

    Raises:
        InputError: a letter is no nucleotide.
    """
    from longstrand.genome.sequence import normalise
    from longstrand.inference.sequences import as_records

    for record in as_records(source, genome=genome):
        yield replace(record, sequence=normalise(record.sequence, where=record.where).sequence)


@app.command()
def scan(
    sequences: SequencesArgument,
    motifs: MotifsArgument,
    output: TableOption,
    genome: GenomeOption = None,
    motif: MotifOption = None,
    threshold: Annotated[float, typer.Option(help="Write hits whose p value is below this.")] = 1e-4,
    max_q: Annotated[float, typer.Option("--q", help="Write hits whose q value is at most this.")] = 1.0,
    background: BackgroundOption = "nrdb",
    strand: Annotated[str, typer.Option(help="both, or + alone.")] = "both",
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write every place that matches a motif, with FIMO's score and exact p value, and a q value (per motif).

    Windows with N are skipped. Places count from 0 without the end, as in BED; with intervals they are the genome's.
    """
    from longstrand.explain import scan as scanning
    from longstrand.explain.tables import hits_table
    from longstrand.runtime import write_frame

    both = one_of(strand, ("both", "+"), "--strand") == "both"
    wanted = chosen_motifs(motifs, motif)
    texts = (record.sequence for record in records_of(sequences, genome)) if background == "input" else ()
    frequencies = scanning.background_of(background, texts)
    seen: list[Record] = []
    longest = 0

    def letters() -> Iterator[str]:
        nonlocal longest
        for record in records_of(sequences, genome):
            longest = max(longest, record.num_bases)
            seen.append(replace(record, sequence="", flanks=("", "")))
            yield record.sequence

    hits = scanning.scan(wanted, letters(), threshold=threshold, background=frequencies, both_strands=both)
    hits = hits.found_room(sequences)
    hits = hits.take(hits.q <= max_q)
    write_frame(output, hits_table(hits, wanted, seen))
    lines = [f"wrote {len(hits):,} hits of {len(wanted):,} motifs in {len(seen):,} sequences to {output}"]
    wide = [each.name for each in wanted if each.width > longest]
    notes = [f"note: {len(wide)} motifs are longer than every sequence, so they have no hits: {', '.join(wide[:5])}."]
    summary = {"output": str(output), "hits": len(hits), "motifs": len(wanted), "sequences": len(seen)}
    show_result(summary, lines, notes if wide else [], as_json=json, quiet=quiet)


@app.command()
def compare(
    queries: Annotated[Path, typer.Argument(help="Motifs to name: MEME, JASPAR or TRANSFAC file.")],
    database: Annotated[Path, typer.Argument(help="Known motifs.")],
    output: TableOption,
    motif: MotifOption = None,
    top: Annotated[int, typer.Option(min=1, help="Targets written for each motif.")] = 10,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Say which known motifs each motif looks like, as Tomtom does (Euclidean distance, complete scores)."""
    from longstrand.explain import compare as comparing
    from longstrand.explain.motifs import read_motifs
    from longstrand.runtime import write_frame

    wanted, targets = chosen_motifs(queries, motif), read_motifs(database)
    write_frame(output, comparing.compare(wanted, targets, top=top))
    few = f"note: p values of {len(targets)} targets say little; use a whole database."
    notes = [few] if len(targets) < comparing.FEW_TARGETS else []
    summary = {"output": str(output), "queries": len(wanted), "targets": len(targets)}
    show_result(
        summary, [f"wrote the best matches of {len(wanted)} motifs to {output}"], notes, as_json=json, quiet=quiet
    )


@app.command()
def discover(
    sequences: SequencesArgument,
    controls: Annotated[str, typer.Argument(help="Sequences that should not have the motifs; likewise.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Motifs to write (.meme).", show_default=False)],
    genome: GenomeOption = None,
    count: Annotated[int, typer.Option(min=1, help="Motifs at most.")] = 5,
    width: Annotated[int, typer.Option(min=6, max=40, help="Bases that a motif may grow to.")] = WIDTH,
    method: Annotated[str, typer.Option(help="own, or streme (your own MEME suite, on the PATH).")] = "own",
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Find motifs that sequences have more often than controls; p values are of sequences that the search left out."""
    from longstrand.explain import discover as discovery

    texts, others = ([record.sequence for record in records_of(x, genome)] for x in (sequences, controls))
    if one_of(method, ("own", "streme"), "--method") == "streme":
        if width != WIDTH:
            raise UsageError("--width is for the method own; leave it out.")
        motifs = discovery.discover_with_streme(texts, others, count=count)
        if motifs is None:
            raise UsageError("there is no program 'streme' on the PATH; install the MEME suite, or use --method own.")
        lines = [motif.label for motif in motifs]
    else:
        found = discovery.discover(texts, others, count=count, width=width)
        motifs = [one.motif for one in found]
        lines = [f"{one.motif.name}: {one.sites} sites, held-out p {one.p:.2g}" for one in found]
    _motifs_found(motifs, lines, output, json, quiet)


@app.command()
def modisco(
    sequences: SequencesArgument,
    attributions: Annotated[Path, typer.Option(help="Folder of explain attribute --method ism, of these sequences.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Motifs to write (.meme).", show_default=False)],
    genome: GenomeOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Cluster what matters to a model into motifs with TF-MoDISco; names begin with pos or neg, what they do."""
    from longstrand.explain.discover import discover_with_modisco
    from longstrand.explain.importance_page import read_attributions

    records = list(records_of(sequences, genome))
    scores = read_attributions(attributions, records, letters=True)
    motifs = discover_with_modisco([record.sequence for record in records], scores)
    _motifs_found(motifs, [f"{one.name}: {one.num_sites:,.0f} sites" for one in motifs], output, json, quiet)


def _motifs_found(motifs: list[Motif], lines: list[str], output: Path, as_json: bool, quiet: bool) -> None:
    from longstrand.explain.motifs import write_meme

    if motifs:
        write_meme(output, motifs)
        lines.append(f"wrote {len(motifs)} motifs to {output}")
    summary = {"output": str(output) if motifs else None, "motifs": [motif.name for motif in motifs]}
    show_result(summary, lines or ["no motif was found; nothing is written"], [], as_json=as_json, quiet=quiet)


@app.command()
def importance(
    model: Annotated[str, typer.Argument(help="Model or tokenizer: folder, name or hub id.")],
    sequences: SequencesArgument,
    motifs: MotifsArgument,
    attributions: Annotated[
        Path, typer.Option(help="Folder of explain attribute; .npz or .zarr (values, offsets), BigWig or bedGraph.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.", show_default=False)],
    genome: GenomeOption = None,
    motif: MotifOption = None,
    database: Annotated[Path | None, typer.Option(help="Motifs that name what is discovered; MOTIFS.")] = None,
    background: BackgroundOption = "nrdb",
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write figure 3 of GENA-LM for a head: where importance lies, enriched tokens, motif classes, motifs found."""
    from longstrand.explain.importance_page import importance_report, read_attributions
    from longstrand.explain.motifs import read_motifs
    from longstrand.explain.scan import background_of
    from longstrand.tokenization.hub import load_tokenizer

    records = list(records_of(sequences, genome))
    known = chosen_motifs(motifs, motif)
    frequencies = background_of(background, (record.sequence for record in records))
    page = importance_report(
        records, read_attributions(attributions, records), load_tokenizer(model), known, output,
        database=read_motifs(database or motifs), background=frequencies, title=f"What matters to {Path(model).name}",
    )  # fmt: skip
    show_result({"report": str(page)}, [f"wrote {page}"], [], as_json=json, quiet=quiet)


ModelArgument = Annotated[str, typer.Argument(help="Model: folder, name or hub id; a masked LM or any head.")]
OutputOption = Annotated[str | None, typer.Option("--class", help="Name or number of the output; all.")]
StrandOption = Annotated[str | None, typer.Option(help="+, - or both; by default as in training.")]


def score_of(model: str, output: str | None, strand: str | None) -> tuple[Score, list[str]]:
    """Make the score function of a model, and name its outputs."""
    from longstrand.inference.loaded import open_model
    from longstrand.questions.scores import outputs_of, scorer
    from longstrand.questions.tokens import reading_of

    opened = open_model(model)
    number = int(output) if output is not None and output.isdecimal() else output
    names = reading_of(opened.network).class_names
    shown = [names[one] if names else str(one) for one in outputs_of(opened.network, number)]
    return scorer(opened.network, output=number, strand=strand), shown


@contextmanager
def named(records: list[Record]) -> Iterator[None]:
    """Name the row of a file where a sequence of a question is refused."""
    try:
        yield
    except SequenceError as error:
        record = records[error.row]
        raise InputError(f"{record.where or record.name}: {error.what}") from None


def word_of(text: str, motifs: Path | None) -> str:
    """Take letters as they are, and the consensus of a motif by its name."""
    if motifs is not None:
        return chosen_motifs(motifs, text)[0].consensus
    if set(text.upper()) - set("ACGT"):
        raise UsageError(f"'{text}' is no word of A, C, G, T; for the name of a motif add --motifs FILE.")
    return text.upper()


@app.command()
def marginalize(
    model: ModelArgument, sequences: SequencesArgument,
    word: Annotated[str, typer.Argument(help="Letters, or the name of a motif with --motifs.")],
    output: TableOption, motifs: Annotated[Path | None, typer.Option(help="Motif file.")] = None,
    output_class: OutputOption = None, strand: StrandOption = None, genome: GenomeOption = None,
    at: Annotated[int | None, typer.Option(min=1, help="Base where the word begins (from 1); the middle.")] = None,
    json: JsonOption = False, quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Say what a motif does to the score when it is put into sequences (backgrounds)."""
    from longstrand.explain import motif_effects

    records, start = list(records_of(sequences, genome)), None if at is None else at - 1
    (score, names), letters = score_of(model, output_class, strand), word_of(word, motifs)
    with named(records):
        frame = motif_effects.marginalize(score, [each.sequence for each in records], letters, start=start)
    _effects(called(frame, names), output, ["effect"], json, quiet)


@app.command()
def ablate(
    model: ModelArgument, sequences: SequencesArgument, motifs: MotifsArgument, output: TableOption,
    motif: MotifOption = None, output_class: OutputOption = None, strand: StrandOption = None,
    genome: GenomeOption = None, threshold: Annotated[float, typer.Option(help="p value of a site.")] = 1e-4,
    background: BackgroundOption = "nrdb",
    shuffles: Annotated[int, typer.Option(min=1, help="Random orders of a site's letters.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the orders.")] = 0,
    json: JsonOption = False, quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Say what the score loses when the sites of motifs are shuffled, beside random stretches of the same length."""
    from longstrand.explain import motif_effects
    from longstrand.explain.scan import background_of, scan

    records = list(records_of(sequences, genome))
    texts = [record.sequence for record in records]
    wanted = chosen_motifs(motifs, motif)
    frequencies = background_of(background, texts)
    hits = scan(wanted, texts, threshold=threshold, background=frequencies).found_room(sequences)
    score, names = score_of(model, output_class, strand)
    with named(records):
        frame = motif_effects.ablate(score, texts, hits, shuffles=shuffles, seed=seed)
    _effects(called(frame, names), output, ["effect", "control"], json, quiet)


@app.command()
def space(
    model: ModelArgument, sequences: SequencesArgument,
    first: Annotated[str, typer.Argument(help="Letters, or the name of a motif with --motifs.")],
    second: Annotated[str, typer.Argument(help="Likewise.")],
    output: TableOption, motifs: Annotated[Path | None, typer.Option(help="Motif file.")] = None,
    distances: Annotated[str, typer.Option(help="Bases between the two: FIRST-LAST, or numbers with commas.")] = "0-20",
    flip: Annotated[bool, typer.Option("--flip", help="The second on the other strand.")] = False,
    output_class: OutputOption = None, strand: StrandOption = None, genome: GenomeOption = None,
    json: JsonOption = False, quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Say whether the model knows the distance between two motifs: their joint effect beyond the sum, by distance."""
    from longstrand.cli.options import numbers
    from longstrand.explain import motif_effects
    from longstrand.runtime import write_frame

    low, dash, high = distances.partition("-")
    between = (
        list(range(int(low), int(high) + 1)) if dash and low.isdecimal() and high.isdecimal() else numbers(distances)
    )
    if not between:
        raise UsageError(f"--distances {distances}: the first is above the last; write 0-20.")
    records, words = list(records_of(sequences, genome)), (word_of(first, motifs), word_of(second, motifs))
    score, names = score_of(model, output_class, strand)
    with named(records):
        frame = motif_effects.space(score, [each.sequence for each in records], words, between, flip=flip)
    frame = called(frame, names)
    write_frame(output, frame)
    best = frame.sort("interaction", descending=True).row(0, named=True)
    ends = f"({best['low']:.3g} to {best['high']:.3g})"
    line = f"strongest together at {best['distance']} bases: {best['interaction']:.3g} beyond the sum {ends}"
    show_result({"output": str(output), "best": best}, [line, f"wrote {output}"], [], as_json=json, quiet=quiet)


def called(frame: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """Write the names of outputs for their numbers."""
    return frame.with_columns(output=frame["output"].map_elements(names.__getitem__, return_dtype=str))


def _effects(frame: pl.DataFrame, output: Path, columns: list[str], as_json: bool, quiet: bool) -> None:
    from longstrand.explain.motif_effects import summary
    from longstrand.runtime import write_frame

    write_frame(output, frame)
    rows = summary(frame, columns).rows(named=True)
    lines = [
        f"output {r['output']}, {r['what']}: {r['mean']:.3g} ({r['low']:.3g} to {r['high']:.3g}) "
        f"over {r['sequences']} sequences, p {r['p']:.2g}"
        for r in rows
    ]
    show_result({"output": str(output), "effects": rows}, [*lines, f"wrote {output}"], [], as_json=as_json, quiet=quiet)
