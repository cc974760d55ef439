"""``longstrand tokenizer``: train a vocabulary on genomes, or look at what a tokenizer does to sequences."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longstrand.cli.options import JsonOption, ReportOption, new_app

if TYPE_CHECKING:
    from longstrand.tokenization.base import Tokenizer
    from longstrand.tokenization.report import TokenizerReport

app = new_app(no_args_is_help=True, help="Train a tokenizer on your genomes, or look at one.")

MEASURED_BASES = 200_000
"""Bases of the training genomes on which bases per token are measured."""
_PIECE = 10_000


@app.command()
def train(
    genomes: Annotated[list[Path], typer.Argument(help="FASTA files, plain, gzip or bgzip; or corpus files.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write the tokenizer to.")],
    kind: Annotated[str, typer.Option(help="bpe (learned from the genomes) or kmer (all words of K bases).")] = "bpe",
    vocab_size: Annotated[int, typer.Option(help="bpe: number of tokens.")] = 4096,
    num_bases: Annotated[int, typer.Option(help="bpe: bases to learn from, sampled over all genomes.")] = 5_000_000,
    min_frequency: Annotated[int, typer.Option(help="bpe: a token occurs at least so often.")] = 2,
    max_token_length: Annotated[int, typer.Option(help="bpe: longest token in bases.")] = 64,
    evenly: Annotated[
        bool, typer.Option("--evenly", help="bpe: as many bases of each genome, not of all bases.")
    ] = False,
    hold_out: Annotated[list[str] | None, typer.Option(help="Contig not to learn from; may be repeated.")] = None,
    k: Annotated[int, typer.Option(help="kmer: bases of a word, 1 to 10.")] = 6,
    overlapping: Annotated[bool, typer.Option(help="kmer: words that slide by one base, as DNABERT's.")] = False,
    seed: Annotated[int, typer.Option(help="The same seed gives the same tokenizer.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace a tokenizer that is already there.")] = False,
    report: ReportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Learn a tokenizer from genomes, on both strands, and save it.

    The folder loads with longstrand and with transformers' AutoTokenizer. Learning sees random pieces of the genomes;
    five million bases are enough for a few thousand tokens.
    """
    from longstrand.data.corpus import GenomeEntry, expand, open_corpus, tokenizer_pieces
    from longstrand.data.regions import HoldOut
    from longstrand.errors import UsageError, one_of
    from longstrand.runtime import check_output, provenance
    from longstrand.tokenization.kmer import make_kmer
    from longstrand.tokenization.report import inspect_tokenizer
    from longstrand.tokenization.train import describe_training, train_bpe, write_training_record

    one_of(kind, ("bpe", "kmer"), "kind of tokenizer")
    learning = (vocab_size, num_bases, min_frequency, max_token_length, evenly) != (4096, 5_000_000, 2, 64, False)
    if (k != 6 or overlapping) if kind == "bpe" else learning:
        raise UsageError(f"an option of another kind of tokenizer than {kind} is given; leave it out.")
    if (output / "tokenizer.json").exists() and not overwrite:
        raise UsageError(f"{output}: there is a tokenizer already; choose another folder or add --overwrite.")
    check_output(output, genomes)
    sources = open_corpus(expand([GenomeEntry(fasta=path) for path in genomes]))
    held = HoldOut(contigs=tuple(hold_out or ()))
    marks = {str(sources.path(number)): mark for number, mark in enumerate(sources.fingerprints)}
    details: dict[str, Any] = {"kind": kind, "genomes": marks}
    try:
        if kind == "kmer":
            tokenizer: Tokenizer = make_kmer(k, overlapping=overlapping)
        else:
            pieces = tokenizer_pieces(sources, num_bases=num_bases, seed=seed, holdout=held, evenly=evenly)
            sizes = {"vocab_size": vocab_size, "min_frequency": min_frequency, "max_token_length": max_token_length}
            tokenizer = train_bpe(pieces, **sizes)
            details |= {"num_bases": num_bases, "min_frequency": min_frequency, "seed": seed, "evenly": evenly}
            details["hold_out"] = held.contigs
    except ValueError as error:
        raise UsageError(str(error)) from None
    tokenizer.save(output)
    found = inspect_tokenizer(tokenizer, tokenizer_pieces(sources, num_bases=MEASURED_BASES, seed=seed, holdout=held))
    details["bases_per_token"] = found.bases_per_token
    _write_page(report, found, f"A tokenizer of {', '.join(path.name for path in genomes)}", [output])
    summary = describe_training(tokenizer, **details)
    write_training_record(output, summary | {"provenance": provenance()})
    if as_json:
        print(json.dumps({"folder": str(output), **summary}, indent=2))
        return
    print(f"{output}: {summary['vocab_size']:,} tokens, longest {summary['longest_token']} bases.")
    look = map(str, (output, sources.path(0), "--plot", output / "tokens.png"))
    print(f"Look at it: longstrand tokenizer inspect {shlex.join(look)}")


@app.command()
def inspect(
    tokenizer: Annotated[Path, typer.Argument(help="Folder of a tokenizer or a model, ours or a published one.")],
    sequences: Annotated[Path, typer.Argument(help="FASTA, a table of sequences, or one sequence a line.")],
    column: Annotated[str, typer.Option(help="Column of the sequences in a table.")] = "sequence",
    max_bases: Annotated[int, typer.Option(help="Look at so many bases; of FASTA, random pieces.")] = 5_000_000,
    seed: Annotated[int, typer.Option(help="Seed of the random pieces.")] = 0,
    exact_text: Annotated[
        bool, typer.Option("--exact-text", help="Give the text to the tokenizer as it is; by default in upper case.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Write a plot (PNG, PDF or SVG).")] = None,
    report: ReportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say how a tokenizer cuts your sequences: bases per token, longest tokens, strand symmetry, unknown letters."""
    from longstrand.errors import UsageError
    from longstrand.tokenization.hub import load_tokenizer
    from longstrand.tokenization.report import inspect_tokenizer, plot_report

    if max_bases < 1:
        raise UsageError(f"--max-bases is at least 1, got {max_bases}.")
    loaded = load_tokenizer(tokenizer)
    counts = {"lower_case": 0, "unknown": 0}
    found = inspect_tokenizer(
        loaded, _texts(sequences, None if exact_text else loaded.alphabet, counts, (column, max_bases, seed))
    )
    if plot is not None:
        plot_report(found, plot, loaded.bases_per_id[loaded.dna_token_ids])
    _write_page(report, found, f"How {tokenizer.name} cuts {sequences.name}", [])
    if as_json:
        print(json.dumps(found.to_dict() | {"letters_changed": counts}, indent=2))
        return
    _show(found, counts)
    if plot is not None:
        print(f"plot: {plot}")


def _write_page(folder: Path | None, found: TokenizerReport, title: str, files: list[Path]) -> None:
    if folder is None:
        return
    from longstrand.report.outcomes import tokenizer_sections, write_outcome
    from longstrand.report.sections import Report

    summary = [f"{found.bases_per_token:.2f} bases per token; {found.unknown_share:.3%} of the tokens are unknown."]
    page = Report(title, tokenizer_sections(found), f"{found.kind}, {found.vocab_size:,} tokens", summary)
    write_outcome(folder, page, files=files, about={"tokenizer": found.fingerprint})


def _texts(path: Path, alphabet: str | None, counts: dict[str, int], limits: tuple[str, int, int]) -> Iterator[str]:
    """Read sequences in the letters of a tokenizer (None: as they are), at most so many bases; count the changes."""
    from longstrand.genome.sequence import normalise
    from longstrand.runtime import progress_bar

    column, max_bases, seed = limits
    total = 0
    with progress_bar("encoding", total=max_bases, unit="bases") as bar:
        for text in _raw_texts(path, column, max_bases, None if alphabet is None else seed):
            if alphabet is not None:
                normal = normalise(text, alphabet + "N" * ("N" not in alphabet), where=str(path))
                counts["lower_case"] += normal.num_lower_case
                counts["unknown"] += normal.num_unknown
                text = normal.sequence
            kept = text[: max_bases - total]
            total += len(kept)
            bar.update(len(kept))
            yield kept
            if total >= max_bases:
                return


def _raw_texts(path: Path, column: str, max_bases: int, seed: int | None) -> Iterable[str]:
    """Read texts; of FASTA random pieces in upper case, or whole entries as they are (seed None)."""
    from longstrand.data.rows import Columns, detect_file, read_records, refuse_columns
    from longstrand.genome.fasta import Genome
    from longstrand.tokenization.train import sample_pieces

    if detect_file(path) == "fasta" and seed is not None:
        refuse_columns(path, "FASTA sequences", sequence=column)
        return sample_pieces([Genome(path)], num_bases=max_bases, piece_length=_PIECE, seed=seed)
    return (record.sequence for record in read_records(path, columns=Columns(sequence=column)))


def _show(report: TokenizerReport, counts: dict[str, int]) -> None:
    lengths = report.token_lengths
    middle = f"5-95 % {lengths['p5']:.0f}-{lengths['p95']:.0f}"
    rows = {
        "tokenizer": f"{'overlapping ' * report.overlapping}{report.kind}, {report.vocab_size:,} tokens, "
        f"{report.num_dna_tokens:,} of them DNA ({report.fingerprint[:19]})",
        "text": f"{report.num_texts:,} sequences, {report.num_bases:,} bases, {report.num_tokens:,} tokens",
        "bases per token": f"{report.bases_per_token:.2f}",
        "token length": f"mean {lengths['mean']:.2f}, median {lengths['median']:.0f}, {middle}, "
        f"longest {lengths['max']:.0f}",
        "unknown": f"{100 * report.unknown_share:.3g} % of tokens",
        "gaps": f"{100 * report.gap_share:.3g} % of bases",
        "letters changed": f"{counts['lower_case']:,} lower case, {counts['unknown']:,} unknown became N",
        "vocabulary used": f"{100 * report.used_share:.1f} % of DNA tokens; {report.entropy_bits:.2f} bits a token",
        "other strand": f"{100 * report.reverse_complement_share:.1f} % of DNA tokens have a reverse complement",
        "longest tokens": ", ".join(f"{token} x{count}" for token, count in report.longest_used_tokens[:3]),
        "most frequent": ", ".join(f"{token} x{count:,}" for token, count in report.frequent_tokens[:8]),
    }
    for name, value in rows.items():
        print(f"{name:<17} {value}")
