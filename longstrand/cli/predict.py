"""``longstrand predict``: apply a fine-tuned model to sequences or intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from longstrand.cli import contigs as tracks
from longstrand.cli import options as common
from longstrand.errors import UsageError

if TYPE_CHECKING:
    from longstrand.inference.jobs import Layout

app = typer.Typer(add_completion=False)

KindOption = Annotated[
    str | None,
    typer.Option(
        "--values", help="probabilities (the default where there are classes) or logits (the model's raw numbers)."
    ),
]
ShiftsOption = Annotated[
    str,
    typer.Option(
        help="Average over windows moved by so many bases, for example 0,1,-1; each on the strands asked for."
    ),
]
TtaOption = Annotated[
    bool,
    typer.Option("--tta", help="Average over eight strands and shifts of at most 3 bases, as GENA-LM's Enformer."),
]
PerOption = Annotated[str, typer.Option(help="Models that label bases: one line a base, or a token.")]


@app.command()
def predict(
    model: common.ModelArgument,
    input: common.InputArgument,
    output: common.OutputOption,
    fasta: common.FastaOption = None,
    window: common.WindowOption = None,
    sequence_column: common.SequenceOption = "sequence",
    pair_column: common.PairOption = None,
    name_column: common.NameOption = None,
    values: KindOption = None,
    per: PerOption = "base",
    strand: common.StrandOption = "+",
    shifts: ShiftsOption = "0",
    tta: TtaOption = False,
    contigs: tracks.ContigsOption = None,
    bin_size: tracks.BinSizeOption = None,
    reduce: tracks.ReduceOption = None,
    column: tracks.ColumnOption = None,
    step: tracks.StepOption = None,
    gap: tracks.GapOption = None,
    truncate: common.TruncateOption = False,
    exact_text: common.ExactOption = False,
    device: common.DeviceOption = "auto",
    precision: common.PrecisionOption = "fp32",
    batch_tokens: common.BatchOption = 8192,
    part_rows: common.PartOption = None,
    overwrite: common.OverwriteOption = False,
    json: common.JsonOption = False,
) -> None:
    """Apply a fine-tuned model to sequences or intervals, one result for every row in order, or to whole contigs.

    The same command continues after an interruption. With --strand both, the logits of the two strands are averaged
    (per-base ones are flipped back first). An empty sequence gets missing values. Several processes (torchrun) share
    the work.
    """
    from longstrand.inference.predict import PredictOptions, head_of

    common.check_choice(per, ("base", "token"), "--per")
    options = tracks.TrackOptions(contigs, bin_size, reduce, column, step, gap)
    wants_track, views = options.wanted(output), _views(strand, shifts, tta=tta)
    loaded = common.load(model, None, is_small=common.is_small(input, fasta))
    head = head_of(loaded.model)
    kind = values or ("logits" if head.problem == "regression" else "probabilities")
    common.check_choice(kind, ("probabilities", "logits"), "--values")
    settings = PredictOptions(
        output=kind,  # type: ignore[arg-type]
        pooling="tokens" if head.kind == "token" and per == "token" else "mean",
        strand="+" if tta else strand,  # type: ignore[arg-type]
        views=views,
        batch_tokens=batch_tokens,
        precision=precision,  # type: ignore[arg-type]
        truncate=truncate,
        exact_text=exact_text,
    )
    job = common.Job(
        model, input, output, fasta, window, sequence_column, pair_column, name_column, device, part_rows, overwrite,
        json,
    )  # fmt: skip
    layout = layout_of(head, kind, per)
    if wants_track:
        tracks.run(job, loaded, settings, options, list(layout.value_names))
    else:
        common.run(job, loaded, settings, layout)


def _views(strand: str, shifts: str, *, tta: bool) -> tuple[tuple[str, int], ...]:
    """Read strands and shifts; none if sequences are read where they are.

    Raises:
        UsageError: --tta beside --shifts or --strand, or a shift is no whole number.
    """
    from longstrand.inference.strands import PUBLISHED_VIEWS, views_of

    if tta:
        if shifts != "0" or strand != "+":
            raise UsageError("--tta names strands and shifts itself; leave --strand and --shifts away.")
        return PUBLISHED_VIEWS
    if shifts == "0":
        return ()
    try:
        return views_of(strand, [int(shift) for shift in shifts.split(",")])
    except ValueError:
        raise UsageError(f"--shifts '{shifts}': give whole numbers of bases, for example 0,1,-1.") from None


def layout_of(head: Any, kind: str, per: str) -> Layout:
    """Name the columns of a head's outputs."""
    from longstrand.inference.jobs import Layout

    names = tuple(head.class_names or (str(number) for number in range(head.num_outputs)))
    unit: Any = {"token": per, "bin": "bin"}.get(head.kind, "sequence")
    if head.problem in ("regression", "counts"):
        columns = ("prediction",) if len(names) == 1 else tuple(f"prediction_{name}" for name in names)
        return Layout(columns, per=unit)
    prefix = {"probabilities": "probability", "logits": "logit"}[kind]
    threshold = None if head.problem == "single_label" else {"probabilities": 0.5, "logits": 0.0}[kind]
    return Layout(tuple(f"{prefix}_{name}" for name in names), names, threshold, per=unit)
