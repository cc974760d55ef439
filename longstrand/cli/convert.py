"""``longstrand convert``: a published checkpoint to ours, or back, tensor by tensor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longstrand.cli.options import JsonOption, ReportOption, new_app
from longstrand.errors import UsageError, one_of

if TYPE_CHECKING:
    from longstrand.models.published.convert import Conversion

app = new_app()

_EXAMPLES = 3


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="Folder (or hub id) of a published checkpoint, or one of ours.")],
    to: Annotated[
        str,
        typer.Option("--to", help="longstrand, published (the format the authors' code reads), or sharded (of FSDP)."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    family: Annotated[
        str | None,
        typer.Option(help="What the source must be; with --to published, the format to write (default: its origin)."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a checkpoint that is already there.")] = False,
    report: ReportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Convert a published checkpoint to Longstrand's format, or back; no tensor is lost, changed or rounded.

    Every tensor must be accounted for, or the conversion is refused. Tokenizer files, README and licence are carried
    over unchanged. To Longstrand and back gives the published tensors and config bit for bit; what our model does not
    use is kept aside for that. Converting is not needed to use a model: every command reads published folders.

    A sharded checkpoint of a training with training.parallel=fsdp becomes a model folder, and back.
    """
    if to == "sharded" or Path(source, "pytorch_model_fsdp_0").is_dir():
        _convert_shards(Path(source), to, output, family=family, force=force)
        facts, lines = {"output": str(output), "target": to}, [f"{output}: written, in {to} format"]
    else:
        from longstrand.models.published.convert import convert_folder

        done = convert_folder(source, output, target=to, family=family, force=force)
        facts, lines = done.to_dict(), describe(done)
    if report is not None:
        from longstrand.report.outcomes import facts_table, write_outcome
        from longstrand.report.sections import Report, Section, Table

        renamed = [[name, ", ".join(ours)] for name, ours in facts.get("renamed", {}).items()]
        shown = {key: value for key, value in facts.items() if key not in ("renamed", "notes")}
        parts: list[Section] = [
            facts_table("What was done", "Every tensor is accounted for; nothing was rounded.", shown)
        ]
        parts += [Table("Names of tensors", "", ["in the source", "in the result"], renamed)] if renamed else []
        page = Report(f"Conversion of {Path(source).name}", parts, f"to {to}", lines[:1], facts.get("notes", []))
        write_outcome(report, page, files=[output], about={"source": source})
    print(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else "\n".join(lines))


def _convert_shards(source: Path, to: str, output: Path, *, family: str | None, force: bool) -> None:
    """Convert between sharded checkpoints and model folders.

    Raises:
        UsageError: the two are of one kind, an option has no meaning, or the output exists.
    """
    from longstrand.runtime import check_output
    from longstrand.training.engine import is_sharded, write_plain, write_sharded

    if one_of(to, ("longstrand", "sharded"), "format of a sharded checkpoint") == "sharded" and is_sharded(source):
        raise UsageError(f"{source}: is sharded already; --to longstrand makes a model folder of it.")
    if family is not None:
        raise UsageError("--family belongs to published checkpoints; leave it out.")
    if output.exists() and not force:
        raise UsageError(f"{output}: exists; choose another folder or add --force.")
    check_output(output, [source])
    (write_sharded if to == "sharded" else write_plain)(source, output)


def describe(done: Conversion) -> list[str]:
    """Say in words what a conversion did, with a few examples of each kind."""
    lines = [f"{done.output}: {done.num_tensors:,} tensors of family {done.family}, in {done.target} format"]
    changed = {name: ours for name, ours in done.renamed.items() if ours != [name]}
    split = {name: ours for name, ours in changed.items() if len(ours) > 1}
    lines += [f"renamed   {len(changed):,} tensors" + (f", {len(split):,} of them split" if split else "")]
    lines += [f"          {name} -> {', '.join(ours)}" for name, ours in list(changed.items())[:_EXAMPLES]]
    lines += _grouped("dropped", done.dropped, " (the way back restores it)")
    lines += _grouped("added", done.added)
    lines += [f"carried   {', '.join(done.carried)}"] if done.carried else []
    lines += [f"left out  {name}: {reason}" for name, reason in done.left.items()]
    lines += [f"quirk     {name}: {what}" for name, what in done.quirks.items()]
    lines += [f"family    {done.differences}"]
    return lines + [f"note      {note}" for note in done.notes]


def _grouped(title: str, reasons: dict[str, str], end: str = "") -> list[str]:
    """Give one line for each reason, with the number of tensors and one example."""
    lines = []
    for reason in dict.fromkeys(reasons.values()):
        names = [name for name, why in reasons.items() if why == reason]
        more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
        lines.append(f"{title:<9} {names[0]}{more}: {reason}{end}")
    return lines
