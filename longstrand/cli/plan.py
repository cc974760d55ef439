"""``longstrand plan``: what a run will need, before it is started."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longstrand.cli.options import JsonOption, new_app
from longstrand.errors import UsageError, one_of

if TYPE_CHECKING:
    from longstrand.info.planning import ResourceEstimate

app = new_app()

ModelOption = Annotated[
    str,
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
    model: ModelOption,
    length: Annotated[int | None, typer.Option(help="Tokens of a sequence.", min=1)] = None,
    bases: Annotated[int | None, typer.Option(help="Bases of a sequence, instead of --length.", min=1)] = None,
    batch: Annotated[int, typer.Option(help="Sequences of a step.", min=1)] = 8,
    mode: Annotated[str, typer.Option(help="train or infer.")] = "train",
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    head: HeadOption = None,
    attention: AttentionOption = None,
    device: DeviceOption = "auto",
    checkpointing: Annotated[bool, typer.Option("--gradient-checkpointing", help="Trade time for memory.")] = False,
    vocab_size: Annotated[int, typer.Option(help="Tokens of the vocabulary, for a preset.", min=8)] = 4096,
    memory_limit: LimitOption = None,
    steps: StepsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure memory and time of a step by running a few of the real shape here; no weights are loaded.

    For a card that is not here (--device a100) the numbers are an estimate from its data sheet, and say so.
    """
    from longstrand.info.planning import GPUS, Setting, find_config, make_plan, with_attention
    from longstrand.runtime import resolve_device

    if (length is None) == (bases is None):
        raise UsageError("give either --length (tokens) or --bases.")
    if attention is not None:
        one_of(attention, ("full", "sliding", "block_sparse"), "--attention")
    chosen = device if device in GPUS or device not in ("auto", "cpu", "cuda") else resolve_device(device).type
    if memory_limit is not None and chosen not in ("cpu", "cuda"):
        raise UsageError("--memory-limit runs steps on this machine; it cannot be combined with the name of a card.")
    config = find_config(model, vocab_size=vocab_size)
    tokens = length if length is not None else tokens_for(model, bases or 0)
    values: dict[str, Any] = {"mode": mode, "precision": precision, "checkpointing": checkpointing}
    values["head"] = head or ("masked_lm" if mode == "train" else "encoder")
    limit = None if memory_limit is None else read_bytes(memory_limit)
    changed = with_attention(config, attention, tokens)
    result = make_plan(model, changed, Setting(tokens, batch, **values), device=chosen, memory_limit=limit)
    print(json.dumps(result.to_dict(), indent=2) if as_json else "\n".join(describe(result, steps)))


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
