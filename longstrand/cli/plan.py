"""``longstrand plan``: what a run will need, before it is started."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longstrand.cli.options import JsonOption, ReportOption, new_app
from longstrand.errors import UsageError, one_of

if TYPE_CHECKING:
    from longstrand.info.planning import ResourceEstimate
    from longstrand.training.settings import PretrainConfig

app = new_app()

ModelOption = Annotated[
    str | None,
    typer.Option(
        help="Model folder, run folder, hub id, shipped name, or preset (tiny, mini, small, medium, base, large)."
    ),
]
AttentionOption = Annotated[
    str | None, typer.Option(help="full, sliding or block_sparse; by default what the model has.")
]
HeadOption = Annotated[
    str | None,
    typer.Option(help="encoder, masked_lm, sequence or token; by default masked_lm in training, else encoder."),
]
DeviceOption = Annotated[
    str, typer.Option(help="auto, cpu or cuda: this machine, measured. Or a card such as a100, h200, t4: an estimate.")
]
LimitOption = Annotated[
    str | None, typer.Option(help="Memory such as 8GB: find the largest batch that fits, by running steps.")
]
StepsOption = Annotated[int | None, typer.Option(help="Steps of the run, to say how long it takes.", min=1)]


@app.command()
def plan(
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="With --config: settings that differ.")
    ] = None,
    model: ModelOption = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="Plan a pre-training: YAML file of settings, or name of a paper's.")
    ] = None,
    gpus: Annotated[int, typer.Option(help="With --config: GPUs that share out a batch.", min=1)] = 1,
    length: Annotated[int | None, typer.Option(help="Tokens of a sequence.", min=1)] = None,
    bases: Annotated[int | None, typer.Option(help="Bases of a sequence, instead of --length.", min=1)] = None,
    batch: Annotated[int | None, typer.Option(help="Sequences of a step; by default 8.", min=1)] = None,
    mode: Annotated[str, typer.Option(help="train or infer.")] = "train",
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16; by default fp32.")] = None,
    head: HeadOption = None,
    attention: AttentionOption = None,
    device: DeviceOption = "auto",
    checkpointing: Annotated[bool, typer.Option("--gradient-checkpointing", help="Trade time for memory.")] = False,
    vocab_size: Annotated[
        int | None, typer.Option(help="Tokens of the vocabulary, for a preset; by default 4096.", min=8)
    ] = None,
    memory_limit: LimitOption = None,
    steps: StepsOption = None,
    report: ReportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure memory and time of a step by running a few of the real shape here; no weights are loaded.

    For a card that is not here (--device a100) the numbers are an estimate from its data sheet, and say so. With
    --config a whole pre-training is planned: 'longstrand plan --config gena --gpus 8 --device a100'.
    """
    from longstrand.info.planning import (
        GPUS,
        Setting,
        describe_run,
        find_config,
        make_plan,
        of_pretraining,
        with_attention,
    )  # fmt: skip
    from longstrand.runtime import resolve_device

    if attention is not None:
        one_of(attention, ("full", "sliding", "block_sparse"), "--attention")
    chosen = device if device in GPUS or device not in ("auto", "cpu", "cuda") else resolve_device(device).type
    if memory_limit is not None and chosen not in ("cpu", "cuda"):
        raise UsageError("--memory-limit runs steps on this machine; it cannot be combined with the name of a card.")
    limit = None if memory_limit is None else read_bytes(memory_limit)
    run = None
    if config is not None:
        unused = {"--length": length, "--bases": bases, "--head": head, "--vocab-size": vocab_size, "--steps": steps}
        unused |= {"--precision": precision, "--mode infer": mode == "infer", "--gradient-checkpointing": checkpointing}
        refuse(unused, "the settings of the run say it")
        run, name = read_run(config, settings or []), config.stem
        found, setting = of_pretraining(run, gpus=gpus, model=model, batch=batch)
    else:
        refuse({"KEY=VALUE": settings, "--gpus": gpus > 1}, "it goes with --config")
        name, tokens = read_shape(model, length, bases)
        found = find_config(name, vocab_size=vocab_size or 4096)
        values: dict[str, Any] = {"mode": mode, "precision": precision or "fp32", "checkpointing": checkpointing}
        values["head"] = head or ("masked_lm" if mode == "train" else "encoder")
        setting = Setting(tokens, batch or 8, **values)
    changed = with_attention(found, attention, setting.length)
    result = make_plan(name, changed, setting, device=chosen, memory_limit=limit)
    lines = describe(result, steps) + ([] if run is None else describe_run(run, result, gpus=gpus))
    _finish(result, lines, report, as_json=as_json)


def _finish(result: ResourceEstimate, lines: list[str], report: Path | None, *, as_json: bool) -> None:
    print(json.dumps(result.to_dict(), indent=2) if as_json else "\n".join(lines))
    if report is None:
        return
    from longstrand.report.outcomes import write_outcome
    from longstrand.report.sections import Report, Table

    rows = [[line[:18].strip(), line[18:]] for line in lines]
    table = Table("What a step needs", "", ["what", "value"], rows)
    summary = [f"{rows[2][1].capitalize()}.", f"A step needs {rows[3][1]} and takes {rows[4][1]}."]
    write_outcome(report, Report("Plan of a run", [table], result.model, summary, result.notes))


def read_shape(model: str | None, length: int | None, bases: int | None) -> tuple[str, int]:
    """Check what is asked without settings of a run; returns the model and the tokens of a sequence.

    Raises:
        UsageError: there is no model, or no length, or two.
    """
    if model is None:
        raise UsageError("give --model, or --config for a whole pre-training.")
    if (length is None) == (bases is None):
        raise UsageError("give either --length (tokens) or --bases.")
    return model, length if length is not None else tokens_for(model, bases or 0)


def refuse(options: Mapping[str, Any], why: str) -> None:
    """Refuse options that were given and would not be used.

    Raises:
        UsageError: naming the first.
    """
    for name, value in options.items():
        if value:
            raise UsageError(f"{name} would not be used: {why}; leave it out.")


def read_run(path: Path, words: Sequence[str]) -> PretrainConfig:
    """Read the settings of a pre-training, shipped or own; what only a run itself needs may be missing."""
    from longstrand.cli.pretrain import PAPERS
    from longstrand.config import build, find_settings, merge, read_yaml
    from longstrand.training.settings import PretrainConfig

    values = merge(read_yaml(find_settings(path, PAPERS)), words)
    values.setdefault("output", "planned")
    data = values.setdefault("data", {})
    if isinstance(data, dict) and not data.get("sequences"):
        data.setdefault("genomes", ["genome.fa"])
        if isinstance(data.get("variants"), dict):
            data["variants"].setdefault("path", "people.vcf")
    return build(PretrainConfig, values, str(path))


def tokens_for(model: str, bases: int) -> int:
    """Return the tokens that so many bases need, special tokens included, by the model's own tokenizer.

    Raises:
        UsageError: the model is a preset, or nobody measured how many bases a token of its tokenizer stands for.
    """
    from longstrand.info.folder import bases_per_token
    from longstrand.models.config import PRESETS
    from longstrand.runtime import model_folder
    from longstrand.tokenization.hub import load_tokenizer

    if model in PRESETS:
        raise UsageError(f"--bases needs the tokenizer of a model folder, and {model} is a preset; give --length.")
    tokenizer = load_tokenizer(model_folder(model), engine="library")
    ratio = bases_per_token(model_folder(model), tokenizer).get("bases per token")
    if ratio is None:
        raise UsageError(
            f"--bases: {model} does not say how many bases a token stands for; measure it with 'longstrand info "
            f"{model} --fasta GENOME' and give --length."
        )
    return -int(-bases // ratio) + tokenizer.num_special_tokens()


def read_bytes(text: str) -> int:
    """Read a size such as 800MB, 8GB or 8 GiB.

    Raises:
        UsageError: it is none.
    """
    match = re.fullmatch(r"([0-9.]+)\s*([KMGT]?)(i?)B?", text.strip(), re.IGNORECASE)
    if match is None or match.group(1).count(".") > 1 or not match.group(1).strip("."):
        raise UsageError(f"--memory-limit '{text}' is no size; write it as 800MB or 8GB.")
    number, unit, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** " KMGT".index(unit.upper() or " "))


def describe(plan: ResourceEstimate, steps: int | None = None) -> list[str]:
    """Describe a plan in words."""
    setting, memory = plan.setting, plan.memory
    again = ", gradient checkpointing" if setting.checkpointing else ""
    held = f"weights {show_bytes(memory.weights)}"
    held += f", gradients and optimizer {show_bytes(memory.training)}" if memory.training else ""
    lines = [
        f"model             {plan.model}, {plan.parameters:,} parameters",
        f"step              {setting.mode} ({setting.head}), {setting.batch} x {setting.length:,} tokens, "
        f"{setting.precision}{again}, on {plan.device}",
        f"numbers           {'measured here' if plan.measured else 'an estimate, nothing was measured'}",
        f"peak memory       {show_bytes(memory.peak)} ({held})",
        f"time              {plan.seconds:.3g} s a step, {plan.tokens_per_second:,.0f} tokens/s",
    ]
    if steps is not None:
        lines.append(f"run               {steps:,} steps in about {plan.seconds * steps / 3600:,.2f} hours")
    if plan.largest_batch is not None and plan.memory_limit is not None:
        lines.append(f"largest batch     {plan.largest_batch:,} in {show_bytes(plan.memory_limit)}, each size tried")
    return lines + [f"note              {note}" for note in plan.notes]


def show_bytes(number: int) -> str:
    """Write a number of bytes in MB or GB."""
    return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
