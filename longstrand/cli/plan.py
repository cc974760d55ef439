"""``longstrand plan``: what a run will need, before it is started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longstrand.cli.options import new_app
from longstrand.errors import UsageError

if TYPE_CHECKING:
    from longstrand.info.plan import Plan

app = new_app()

ModelOption = Annotated[
    str, typer.Option(help="Model folder, preset (tiny, mini, small, medium, base, large) or published family.")
]
AttentionOption = Annotated[
    str | None, typer.Option(help="full, sliding or block_sparse; by default what the model has.")
]
HeadOption = Annotated[
    str | None,
    typer.Option(help="encoder, masked_lm, sequence or token; by default masked_lm in training, else encoder."),
]


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
    device: Annotated[str, typer.Option(help="cpu (this machine, measured), or a GPU such as a100, h200, t4.")] = "cpu",
    checkpointing: Annotated[bool, typer.Option("--gradient-checkpointing", help="Trade time for memory.")] = False,
    vocab_size: Annotated[int, typer.Option(help="Tokens of the vocabulary, for a preset.", min=8)] = 4096,
    measure: Annotated[bool, typer.Option("--measure", help="Measure this machine again (a few seconds).")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Predict peak memory and time of a step, and the largest batch that fits; no weights are loaded.

    The speed of this machine is measured once, in a few seconds, and kept in the cache folder; measure while nothing
    else runs. On 14 real runs of an idle machine, memory and time were within 30 % of the prediction each time, six of
    them configurations that nothing was fitted to but for one allowance (see the guide). A busy machine is slower.
    """
    from longstrand.cli.options import check_choice
    from longstrand.info.calibration import calibrate
    from longstrand.info.plan import find_config, make_plan, with_attention
    from longstrand.info.workload import Setting

    if (length is None) == (bases is None):
        raise UsageError("give either --length (tokens) or --bases.")
    if attention is not None:
        check_choice(attention, ("full", "sliding", "block_sparse"), "--attention")
    config = find_config(model, vocab_size=vocab_size)
    tokens = length if length is not None else tokens_for(model, bases or 0)
    chosen = head or ("masked_lm" if mode == "train" else "encoder")
    values: dict[str, Any] = {"mode": mode, "precision": precision, "head": chosen, "checkpointing": checkpointing}
    setting = Setting(tokens, batch, **values)
    rates = calibrate(again=measure) if device == "cpu" else None
    result = make_plan(model, with_attention(config, attention, tokens), setting, device=device, rates=rates)
    print(json.dumps(result.to_dict(), indent=2) if as_json else "\n".join(describe(result)))


def tokens_for(model: str, bases: int) -> int:
    """Turn bases into tokens with the tokenizer in the model's folder, special tokens included.

    Raises:
        UsageError: the model is no folder, so there is no tokenizer to measure with.
    """
    from longstrand.info.context import measure_bases_per_token
    from longstrand.tokenization.hub import load_tokenizer

    folder = next((path for path in (Path(model), Path(model) / "model") if (path / "config.json").is_file()), None)
    if folder is None:
        raise UsageError(f"--bases needs the tokenizer of a model folder, and {model} is a name; give --length.")
    tokenizer = load_tokenizer(folder, engine="library")
    return measure_bases_per_token(tokenizer).tokens(bases) + tokenizer.num_special_tokens()


def describe(plan: Plan) -> list[str]:
    """Say a plan in words."""
    setting, memory = plan.setting, plan.memory
    again = ", gradient checkpointing" if setting.checkpointing else ""
    parts = {"weights": memory.weights, "gradients": memory.gradients, "optimizer": memory.optimizer,
             "activations": memory.activations, "logits": memory.logits, "temporary": memory.temporary}  # fmt: skip
    shown = ", ".join(f"{name} {_bytes(size)}" for name, size in parts.items() if size)
    lines = [
        f"model             {plan.model}, {sum(plan.parameters.values()):,} parameters",
        f"step              {setting.mode} ({setting.head}), {setting.batch} x {setting.length:,} tokens, "
        f"{setting.precision}{again}, on {plan.device}",
        f"peak memory       {_bytes(memory.peak)} ({shown})",
        f"time              {plan.seconds:.3g} s a step, {plan.tokens_per_second:,.0f} tokens/s",
    ]
    if plan.largest_batch is not None and plan.available is not None:
        lines.append(f"largest batch     {plan.largest_batch:,} in 90 % of {_bytes(plan.available)}")
    return lines + [f"note              {note}" for note in plan.notes]


def _bytes(number: int) -> str:
    return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
