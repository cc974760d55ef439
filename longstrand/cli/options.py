"""What verbs have in common: how an app is made, the options that several of them take, options made from a model.

An option that several verbs take is an annotated type here; the options of a pydantic model become options of a command
by `options_of`, with their descriptions as help.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from longstrand.errors import UsageError, nearest

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo


def new_app(**settings: Any) -> typer.Typer:
    """Make the app of a verb: ``-h`` is help, and errors are for `longstrand.cli.main` to print.

    Completion of all verbs is installed once, by ``longstrand --install-completion``.
    """
    names = {"help_option_names": ["-h", "--help"]}
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, context_settings=names, **settings)


ModelOption = Annotated[
    str | None, typer.Option("--model", "-m", help="Folder of a model or run, name of a shipped model, or hub id.")
]
GenomeOption = Annotated[Path | None, typer.Option("--genome", "--fasta", help="Genome of the intervals (FASTA).")]
SequenceColumnOption = Annotated[
    str | None, typer.Option("--sequence-column", help="Column with the sequences; by default 'sequence'.")
]
LabelColumnOption = Annotated[
    str | None, typer.Option("--label-column", "--label", help="Column(s) with the labels, with commas between them.")
]
StrandOption = Annotated[
    str | None,
    typer.Option("--strand", help="Sequences as given (+), their reverse complement (-), or average the two (both)."),
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="auto (a GPU if there is one), cpu, cuda, cuda:1, mps.")
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="Processor threads; by default as many as there are free cores.")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace an output that was made otherwise.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings and errors alone.")]


def options_of(
    model: type[BaseModel], *, leave_out: Iterable[str] = (), names: Mapping[str, str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the fields of a model as options, which arrive as keywords; None is "not given".

    Args:
        model: its fields become options; their descriptions are the help, their defaults are shown.
        leave_out: fields that are no options.
        names: spellings other than ``--field-name``, several with commas.
    """
    spelled, left = names or {}, set(leave_out)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [entry for entry in signature.parameters.values() if entry.kind is not entry.VAR_KEYWORD]
        made = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=None,
                annotation=_option(field, spelled.get(name, f"--{name.replace('_', '-')}").split(",")),
            )
            for name, field in model.model_fields.items() if name not in left
        ]  # fmt: skip
        command.__signature__ = signature.replace(parameters=own + made)  # type: ignore[attr-defined]
        return command

    return decorate


def _option(field: FieldInfo, spellings: list[str]) -> Any:
    shown: Any = None if field.default in (None, (), False) else _word(field.default)
    kinds = [kind for kind in (field.annotation, *get_args(field.annotation)) if kind in (bool, int, float)]
    kind: Any = kinds[0] if kinds and "tuple" not in str(field.annotation) else str
    least = next((entry.ge for entry in field.metadata if hasattr(entry, "ge")), None)
    if kind is bool:
        spellings = [f"{spellings[0]}/--no-{spellings[0].removeprefix('--')}"]
    option = typer.Option(
        *spellings,
        help=f"{field.description}.",
        show_default=shown or False,
        min=least,
    )
    return Annotated[kind | None, option]


def _word(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the options that were not given."""
    return {name: value for name, value in options.items() if value is not None}


def model_first(model: str | None, words: list[str], usage: str) -> list[str]:
    """Take the model from ``--model`` or as the first argument; return it before the other arguments.

    Raises:
        UsageError: an argument is missing or left over.
    """
    found = words if model is None else [model, *words]
    if len(found) != usage.count(" ") + 1:
        raise UsageError(f"give {usage} (the model as first argument or with --model); got {len(found)}: {found}.")
    return found


def show_result(result: Any, lines: list[str], notes: Iterable[str], *, as_json: bool, quiet: bool) -> None:
    """Print what a job has done: JSON or sentences; notes go to the error output when the rest is not for people."""
    if as_json:
        typer.echo(json.dumps(result, indent=2, default=str))
    elif not quiet:
        for line in lines:
            typer.echo(line)
    for note in notes:
        typer.echo(note, err=as_json or quiet)


@contextmanager
def progress_bar(count: Callable[[], int | None], unit: str, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal; counting the rows and drawing cost nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield lambda number: None
        return
    from longstrand.runtime import progress

    with progress("predict", total=count(), unit=unit) as bar:
        yield bar


def check_choice(value: str, choices: tuple[str, ...], option: str) -> str:
    """Check a word given on the command line.

    Raises:
        UsageError: naming the nearest choice and all choices.
    """
    if value not in choices:
        raise UsageError(f"{option} '{value}' is unknown{nearest(value, choices)}; use {', '.join(choices)}.")
    return value
