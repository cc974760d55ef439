"""``longstrand predict``: apply a fine-tuned model to sequences or intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from longstrand.commands import inference as common

if TYPE_CHECKING:
    from longstrand.inference import Layout

app = typer.Typer(add_completion=False)

KindOption = Annotated[
    str | None,
    typer.Option(
        "--values", help="probabilities (the default where there are classes) or logits (the model's raw numbers)."
    ),
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
    truncate: common.TruncateOption = False,
    exact_text: common.ExactOption = False,
    device: common.DeviceOption = "auto",
    precision: common.PrecisionOption = "fp32",
    batch_tokens: common.BatchOption = 8192,
    part_rows: common.PartOption = None,
    overwrite: common.OverwriteOption = False,
    json: common.JsonOption = False,
) -> None:
    """Apply a fine-tuned model to sequences or intervals; one result for every row, in order.

    The same command continues after an interruption. With --strand both, the logits of the two strands are averaged
    (per-base ones are flipped back first). An empty sequence gets missing values. Several processes (torchrun) share
    the work.
    """
    from longstrand.predict import Settings, head_of

    common.check_choice(per, ("base", "token"), "--per")
    loaded = common.load(model, None, is_small=common.is_small(input, fasta))
    head = head_of(loaded.model)
    kind = values or ("logits" if head.problem == "regression" else "probabilities")
    common.check_choice(kind, ("probabilities", "logits"), "--values")
    settings = Settings(
        output=kind,  # type: ignore[arg-type]
        pooling="tokens" if head.kind == "token" and per == "token" else "mean",
        strand=strand,  # type: ignore[arg-type]
        batch_tokens=batch_tokens,
        precision=precision,  # type: ignore[arg-type]
        truncate=truncate,
        exact_text=exact_text,
    )
    job = common.Job(
        model,
        input,
        output,
        fasta,
        window,
        sequence_column,
        pair_column,
        name_column,
        device,
        part_rows,
        overwrite,
        json,
    )
    common.run(job, loaded, settings, layout_of(head, kind, per))


def layout_of(head: Any, kind: str, per: str) -> Layout:
    """Name the columns of a head's outputs."""
    from longstrand.inference import Layout

    names = tuple(head.class_names or (str(number) for number in range(head.num_outputs)))
    unit: Any = {"token": per, "bin": "bin"}.get(head.kind, "sequence")
    if head.problem in ("regression", "counts"):
        columns = ("prediction",) if len(names) == 1 else tuple(f"prediction_{name}" for name in names)
        return Layout(columns, per=unit)
    prefix = {"probabilities": "probability", "logits": "logit"}[kind]
    threshold = None if head.problem == "single_label" else {"probabilities": 0.5, "logits": 0.0}[kind]
    return Layout(tuple(f"{prefix}_{name}" for name in names), names, threshold, per=unit)
