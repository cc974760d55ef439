"""What verbs have in common: how an app is made, the options that several of them take, options made from a model.

An option that several verbs take is an annotated type here; the options of a pydantic model become options of a command
by `options_of`, with their descriptions as help.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from typer.core import TyperCommand, TyperGroup

from longstrand.config import Config, find_settings, from_command_line
from longstrand.errors import ColumnError, UsageError, nearest

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from longstrand.inference.jobs import JobResult


WRITTEN = ("output", "folder", "report", "plot", "map")
"""Options that name what a command writes."""


class Verb(TyperCommand):
    """A command that refuses to write over what it reads, whatever it is, and options of which one would be lost."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words of a line.

        Raises:
            UsageError: an option of one value is given twice.
        """
        order = [] if "_LONGSTRAND_COMPLETE" in os.environ else self.make_parser(ctx).parse_args(list(args))[2]
        for option in order:
            times = order.count(option)
            harmless = getattr(option, "is_flag", False) and not option.secondary_opts
            if times > 1 and not harmless and option.nargs == 1 and not getattr(option, "multiple", True):
                raise UsageError(
                    f"{option.opts[0]} is given {times} times and only the last would count; give it once."
                )
        return super().parse_args(ctx, args)

    def invoke(self, context: typer.Context) -> Any:
        """Check the options of `WRITTEN` against all the others, and run the command.

        Raises:
            UsageError: naming the input that would be replaced.
        """
        from longstrand.runtime import check_output

        paths = [name for name in WRITTEN if isinstance(context.params.get(name), Path)]
        given = [value for name, value in context.params.items() if name not in paths]
        read = [item for value in given for item in (value if isinstance(value, list | tuple) else [value])]
        for name in paths:
            check_output(context.params[name], read, replaced=("report.html", "report.json"))
        try:
            return super().invoke(context)
        except ColumnError as error:
            raise error.with_options([word for option in self.params for word in option.opts]) from error


class Verbs(TyperGroup):
    """A command with sub-commands, which says what they are where it is given something else."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the sub-command that a line means.

        Raises:
            UsageError: there is none of that name; all are named, and the likely one.
        """
        if args[0] not in self.commands and not args[0].startswith("-"):
            known = list(self.commands)
            likely = nearest(args[0], known)
            takes_words = any(item.param_type_name == "argument" for item in self.commands[known[0]].params)
            if not likely and takes_words and (os.path.exists(args[0]) or len(args) > 1):
                likely = f" (did you mean '{ctx.command_path} {known[0]} {' '.join(args)}'?)"
            raise UsageError(f"{ctx.command_path}: no command '{args[0]}'{likely}; commands are: {', '.join(known)}.")
        return super().resolve_command(ctx, args)


def new_app(**settings: Any) -> typer.Typer:
    """Make the app of a verb: ``-h`` is help, and errors are for `longstrand.cli.main` to print.

    Completion of all verbs is installed once, by ``longstrand --install-completion``.
    """
    names = {"help_option_names": ["-h", "--help"]}
    app = typer.Typer(
        cls=Verbs, add_completion=False, pretty_exceptions_enable=False, context_settings=names, **settings
    )
    app.command = partial(app.command, cls=Verb)  # type: ignore[method-assign]
    return app


WordsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL INPUT",
        help="Model: folder of a model or run, name of a shipped model, hub id (or --model). Input: FASTA, or a table "
        "with a sequence column; or intervals with --genome: BED, or a table with chrom,start,end[,strand].",
        show_default=False,
    ),
]
ModelOption = Annotated[
    str | None, typer.Option("--model", "-m", help="Folder of a model or run, name of a shipped model, or hub id.")
]
GenomeOption = Annotated[Path | None, typer.Option("--genome", "--fasta", help="Genome of the intervals (FASTA).")]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="YAML file of settings (pretrain: or a name); KEY=VALUE and options change it."),
]
StrandOption = Annotated[
    str | None,
    typer.Option("--strand", help="Sequences as given (+), their reverse complement (-), or average the two (both)."),
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="auto (a GPU if there is one), cpu, cuda, cuda:1, mps.")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace an output that was made otherwise.")]
ReportOption = Annotated[
    Path | None, typer.Option("--report", help="Folder for report.html: pictures, notes, files with their hashes.")
]
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
    order = sorted(model.model_fields, key=lambda name: name not in model.__annotations__)  # those of a base come last
    annotations = {
        name: _option(model.model_fields[name], spelled.get(name, f"--{name.replace('_', '-')}").split(","))
        for name in order
        if name not in left
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters.values()
        _sign(command, [entry for entry in own if entry.kind is not entry.VAR_KEYWORD], annotations)
        return command

    return decorate


def _sign(command: Any, own: list[inspect.Parameter], annotations: Mapping[str, Any]) -> None:
    """Let typer see keywords that default to None after a command's own parameters."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    made = [inspect.Parameter(name, keyword, default=None, annotation=kind) for name, kind in annotations.items()]
    command.__signature__ = inspect.Signature(own + made)


def run_options(
    command: str, *, example: str, shipped: Path | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the settings of a run: KEY=VALUE words, ``--config``, and options for some of them.

    The command's first argument is ``read(model, plain=...)``: the validated settings, as
    `longstrand.config.from_command_line` merges them.

    Args:
        command: whose options in ``runs.toml`` they are.
        example: of KEY=VALUE, for the help.
        shipped: folder of settings that ``--config`` also takes by name.
    """
    content = tomllib.loads(Path(__file__).with_name("runs.toml").read_text(encoding="utf-8"))[command]
    table = {option: (entry["setting"], KINDS[entry["kind"]], entry["help"]) for option, entry in content.items()}
    words = typer.Argument(metavar="[KEY=VALUE]...", help=f"Any setting, for example {example}.")
    annotations: dict[str, Any] = {"settings": Annotated[list[str] | None, words], "config": ConfigOption}
    places = {option: f"{option.split(',')[0].removeprefix('--').replace('-', '_')}_" for option in table}
    for option, (_, kind, text) in table.items():
        shown = str if inspect.isfunction(kind) else kind
        annotations[places[option]] = Annotated[shown | None, typer.Option(*option.split(","), help=text)]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(**given: Any) -> None:
            settings, config = given.pop("settings"), given.pop("config")
            several = next(
                (places[o] for o, (_, kind, _) in table.items() if kind == list[Path] and given[places[o]]), None
            )
            if several is not None:  # --tracks a.bw b.bw c.bw
                given[several] = [*given[several], *(Path(word) for word in settings or () if "=" not in word)]
                settings = [word for word in settings or () if "=" in word]
            values: dict[str, tuple[str, Any]] = {}
            for option, (key, kind, _) in table.items():
                value = given.pop(places[option])
                name = option.split(",")[0]
                try:
                    made = kind(value) if value is not None and inspect.isfunction(kind) else value
                except UsageError as error:
                    raise UsageError(f"{name} takes {error}") from None
                values[name] = (key, None if made == [] or made is False else made)

            if config is not None and shipped is not None:
                config = find_settings(config, shipped)

            def read(model: type[Config], plain: Mapping[str, str] | None = None) -> Config:
                return from_command_line(model, config, settings or [], values, plain=plain)

            command(read, **given)

        run.__doc__, run.__name__ = command.__doc__, command.__name__
        _, *own = inspect.signature(command, eval_str=True).parameters.values()
        _sign(run, [entry.replace(kind=entry.KEYWORD_ONLY) for entry in own], annotations)
        return run

    return decorate


def numbers(text: str) -> list[int]:
    """Read whole numbers with commas between them.

    Raises:
        UsageError: one is none.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"whole numbers with commas between them, got '{text}'.") from None


KINDS: dict[str, Any] = {
    "text": str, "path": Path, "int": int, "float": float, "flag": bool, "texts": list[str], "paths": list[Path],
    "numbers": numbers,
}  # fmt: skip
"""Types of the options in ``runs.toml``; a function of the text makes the value, its UsageError says what is taken."""


def _option(field: FieldInfo, spellings: list[str]) -> Any:
    shown: Any = None if field.default in (None, (), False) else _word(field.default)
    kinds = [kind for kind in (field.annotation, *get_args(field.annotation)) if kind in (bool, int, float)]
    is_text = "tuple" in str(field.annotation) or str in get_args(field.annotation)
    kind: Any = kinds[0] if kinds and not is_text else str
    least = next((entry.ge for entry in field.metadata if hasattr(entry, "ge")), None)
    if kind is bool:
        spellings = [f"{spellings[0]}/--no-{spellings[0].removeprefix('--')}"]
    option = typer.Option(*spellings, help=f"{field.description}.", show_default=shown or False, min=least)
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


def show_job(result: JobResult, unit: str, counted: str | None = None, *, as_json: bool, quiet: bool) -> None:
    """Print what a job over a file has done.

    Args:
        result: of the job.
        unit: what its rows are called.
        counted: what was computed, to say how many a second.
        as_json: print the summary as JSON.
        quiet: print notes alone.
    """
    if result.num_rows is None:
        typer.echo(f"the parts of this process of {result.output} are done; the last rank joins them.")
        return
    rate, bases = result.computed / max(result.seconds, 1e-9), result.counts.get("bases")
    number = f"{result.num_rows:,} {unit}" + (f", {bases:,} bases," if unit == "contigs" else "")
    speed = f"{result.seconds:.1f} s" + (f", {rate:,.1f} {counted}/s" if counted else "")
    line = f"wrote {number} to {result.output} ({speed})"
    if result.already_finished:
        line = f"{result.output} is already complete ({result.num_rows:,} {unit}); --overwrite makes it anew."
    summary = asdict(result)
    summary = {"output": str(summary.pop("output")), unit: summary.pop("num_rows"), **summary.pop("counts"), **summary}
    summary |= {f"{counted}_per_second": round(rate, 2)} if counted else {}
    show_result(summary, [line], [] if as_json else result.notes, as_json=as_json, quiet=quiet)


@contextmanager
def progress_bar(
    verb: str, count: Callable[[], int | None], unit: str, *, quiet: bool
) -> Iterator[Callable[[int], None]]:
    """Show a bar with the name of the verb on a terminal; counting the rows and drawing cost nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield lambda number: None
        return
    from longstrand import runtime

    with runtime.progress_bar(verb, total=count(), unit=unit) as bar:
        yield bar.update
