"""`longstrand plan`: take one real step of the asked shape on this machine, or estimate a named card.

Each step runs in a process of its own: a model with random weights of the asked shape, forward, backward, clipping and
AdamW, or inference. Its memory is the most that the process held
(``VmHWM``; on a GPU what PyTorch allocated), its time the best of the steps after the first.
"""

from __future__ import annotations

import resource
import time
import tomllib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from math import prod
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import torch

from longstrand.errors import ConfigError, InputError, LongstrandError, UsageError, nearest, one_of
from longstrand.models.attention.layouts import is_full, longest_input, make_layout
from longstrand.models.config import PRESETS, LongstrandConfig, preset
from longstrand.models.networks import NETWORKS, only_head
from longstrand.models.precision import cpu_has_bf16
from longstrand.models.published.to_ours import import_headers
from longstrand.models.strict_load import shapes_only
from longstrand.runtime import model_folder, peak_resident, read_json
from longstrand.tokenization.hub import load_tokenizer
from longstrand.tokenization.kmer import make_kmer
from longstrand.training.settings import PretrainConfig
from longstrand.training.throughput import training_flops_per_token

GPUS: dict[str, dict[str, float]] = tomllib.loads(Path(__file__).with_name("gpus.toml").read_text(encoding="utf-8"))
"""Bandwidth in GB/s and peak of dense products in TFLOP/s in fp32 and bf16 (absent: no bf16 units) of cards by name."""
GPU_EFFICIENCY = 0.4
"""Share of peak and bandwidth that a step is taken to reach on a GPU; an assumption, not a measurement."""
MASKED_SHARE = 0.15
MEMORY_WORDS = ("alloc", "out of memory")


@dataclass(frozen=True)
class Setting:
    """What is asked.

    Attributes:
        length: tokens of each sequence, special ones included.
        batch: sequences of a step.
        mode: ``train`` (forward, backward, clipping, AdamW) or ``infer``.
        precision: ``fp32``, or ``bf16`` by autocast.
        head: encoder, masked_lm, sequence or token.
        checkpointing: gradient checkpointing.
    """

    length: int
    batch: int = 1
    mode: Literal["train", "infer"] = "train"
    precision: Literal["fp32", "bf16"] = "fp32"
    head: str = "masked_lm"
    checkpointing: bool = False

    def __post_init__(self) -> None:
        one_of(self.mode, ("train", "infer"), "mode")
        one_of(self.precision, ("fp32", "bf16"), "precision")
        one_of(self.head, ("encoder", "masked_lm", "sequence", "token"), "head")
        for name in ("length", "batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is at least 1, got {getattr(self, name)}.")


@dataclass(frozen=True)
class ByteCount:
    """Bytes of a step.

    Attributes:
        weights: of the model.
        training: gradients and AdamW's two averages; 0 in inference.
        peak: the most that is there at one moment.
    """

    weights: int
    training: int
    peak: int


@dataclass(frozen=True)
class ResourceEstimate:
    """What a run needs.

    Attributes:
        model: how the model was named.
        setting: what was asked.
        parameters: numbers in the weights.
        memory: bytes.
        seconds: of a step.
        tokens_per_second: throughput.
        device: cpu, cuda, or a card by name.
        measured: a step was run; False: calculated from a data sheet.
        largest_batch: sequences whose step was run within ``memory_limit``; 0 = not even one; None = not asked.
        memory_limit: bytes, or None.
        notes: how sure the numbers are.
    """

    model: str
    setting: Setting
    parameters: int
    memory: ByteCount
    seconds: float
    tokens_per_second: float
    device: str
    measured: bool
    largest_batch: int | None
    memory_limit: int | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as a plain dictionary."""
        return asdict(self)


@dataclass(frozen=True)
class Measured:
    """One run of some steps: the most memory in bytes, and seconds of the best step."""

    peak: int
    seconds: float


def find_config(model: str, *, vocab_size: int = 4096) -> LongstrandConfig:
    """Find the configuration of a preset or of anything that `model_folder` finds; weights are not read.

    Raises:
        UsageError: there is no such folder and no such name.
    """
    if model in PRESETS and not Path(model).is_dir():
        return preset(model, vocab_size=vocab_size, type_vocab_size=0)
    try:
        folder = model_folder(model)
    except LongstrandError as error:
        hint = nearest(model, PRESETS)
        raise UsageError(f"{error} Presets{hint}: {', '.join(PRESETS)}.") from None
    content = read_json(folder / "config.json")
    if content.get("model_type") == LongstrandConfig.model_type:
        return LongstrandConfig.from_dict(content)
    return import_headers(folder).config


def of_pretraining(
    run: PretrainConfig, *, gpus: int, model: str | None = None, batch: int | None = None
) -> tuple[LongstrandConfig, Setting]:
    """Read from the settings of a pre-training the model that it trains, and a forward pass of one of its GPUs.

    Args:
        run: the settings.
        gpus: over which a batch is shared out.
        model: folder or preset in place of the checkpoint to start from.
        batch: sequences of a pass; by default what the settings say, or 8.

    Raises:
        UsageError: the checkpoint to start from is not there, or the batch cannot be shared out.
    """
    if run.training.batch_size % gpus:
        raise UsageError(f"a batch of {run.training.batch_size} sequences cannot be shared out over {gpus} GPUs.")
    settings, start = run.tokenizer, model or run.model.start_from
    length = run.training.max_tokens
    if run.memory is not None:
        length = run.memory.segment_length
    if start is not None:
        config = find_config(str(start), vocab_size=settings.vocab_size)
    else:
        made = None
        if settings.path is not None:
            made = load_tokenizer(settings.path, engine="library")
        elif settings.kind == "kmer":
            made = make_kmer(settings.k, overlapping=settings.overlapping)
        vocab_size = settings.vocab_size if made is None else made.vocab_size
        fields = {"max_position_embeddings": length, "type_vocab_size": 0, **run.model.settings}
        config = preset(run.model.preset, vocab_size=vocab_size, **fields)
    if run.memory is not None:
        config = config.replace(memory={**run.memory.model_settings(), "loss": None})
        length *= run.memory.most_segments or 1
    share = run.training.batch_size // gpus
    micro = batch or run.training.micro_batch_size or min(8, share)
    checkpointing = run.training.gradient_checkpointing
    return config, Setting(length, micro, precision=run.training.precision, checkpointing=checkpointing)


def describe_run(run: PretrainConfig, plan: ResourceEstimate, *, gpus: int) -> list[str]:
    """Say what the whole of a pre-training needs, from the plan of one forward pass of one GPU."""
    training, setting = run.training, plan.setting
    passes = -(-training.batch_size // (gpus * setting.batch))
    hours = training.steps * passes * plan.seconds / 3600
    tokens = training.steps * training.batch_size * setting.length
    lines = [
        f"whole run         {training.steps:,} steps of {training.batch_size:,} x {setting.length:,} tokens: "
        f"{tokens / 1e9:,.1f} billion tokens",
        f"on {gpus:<4} x {plan.device:<8} {passes:,} passes a step on each, about {hours:,.0f} hours",
    ]
    if training.parallel == "fsdp":
        held = plan.memory.weights + plan.memory.training
        shared = plan.memory.peak - held + held // gpus
        lines.append(
            f"shared out        about {shared / 1e9:,.1f} GB on each: weights, gradients, optimizer over {gpus}"
        )
    return [*lines, "note              passes are timed with the optimizer in each and without talk between GPUs."]


def with_attention(config: LongstrandConfig, pattern: str | None, length: int) -> LongstrandConfig:
    """Change the attention pattern, and let tables of computed positions reach the length."""
    changes: dict[str, Any] = {}
    if pattern is not None and pattern != config.attention.pattern:
        changes["attention"] = {"pattern": pattern}
        if config.rotary.local_theta and pattern != "sliding":
            changes["rotary"] = {**config.rotary.model_dump(), "local_theta": None}
    if config.positions != "learned" and length > config.max_position_embeddings:
        changes["max_position_embeddings"] = length
    return config.replace(**changes) if changes else config


def make_plan(
    model: str,
    config: LongstrandConfig,
    setting: Setting,
    *,
    device: str = "cpu",
    steps: int = 3,
    memory_limit: int | None = None,
    measure: Callable[[LongstrandConfig, Setting, str, int, int | None], Measured] | None = None,
) -> ResourceEstimate:
    """Measure (cpu, cuda) or estimate (a card by name) what a run needs.

    Args:
        model: its name, for the record.
        config: its configuration.
        setting: what is asked.
        device: cpu, cuda, or a name in `GPUS`.
        steps: steps that are timed, after a first one that is not.
        memory_limit: bytes; also find the largest batch whose step stays below, by running steps.
        measure: in place of `measure_step`.

    Raises:
        UsageError: unknown device; bf16 on a card without it; a length that the model cannot read.
        InputError: the step does not fit into the memory.
    """
    limit = longest_input(config)
    if limit is not None and setting.length > limit:
        raise UsageError(
            f"{setting.length:,} tokens do not fit: the position table of this model ends at {limit:,}; ask for a "
            "shorter --length."
        )
    sizes = parameter_shapes(config, setting.head)
    count = sum(map(prod, sizes.values()))
    weights, training = 4 * count, 12 * count if setting.mode == "train" else 0
    notes: list[str] = []
    largest = None
    if device in ("cpu", "cuda"):
        run = measure or measure_step
        found = run(config, setting, device, steps, None)
        if memory_limit is not None:
            largest = largest_batch(config, setting, device, memory_limit, (found.peak, run))
        if device == "cpu" and setting.precision == "bf16" and not cpu_has_bf16():
            notes.append("this processor has no bf16 units: the model computes in fp32.")
        if device == "cpu":
            notes.append("memory is that of the whole process, libraries included.")
    else:
        found, note = _estimate(config, setting, device, sizes), "nothing was measured: an estimate"
        notes.append(f"{note} from the data sheet of {device} at {GPU_EFFICIENCY:.0%} of its peak and bandwidth.")
    return ResourceEstimate(
        model=model,
        setting=setting,
        parameters=count,
        memory=ByteCount(weights, training, found.peak),
        seconds=found.seconds,
        tokens_per_second=setting.batch * setting.length / found.seconds,
        device=device,
        measured=device in ("cpu", "cuda"),
        largest_batch=largest,
        memory_limit=memory_limit,
        notes=tuple(notes),
    )


def largest_batch(
    config: LongstrandConfig, setting: Setting, device: str, limit: int, known: tuple[int, Callable[..., Measured]]
) -> int:
    """Find the most sequences whose step stays below ``limit`` bytes, to within a sixteenth; 0 if one is too many.

    Every candidate is run, one step each: twice as many until they are too many, then halves between.
    """
    peak, run = known
    peaks = {setting.batch: peak}

    def fits(batch: int) -> bool:
        if batch not in peaks:
            try:
                peaks[batch] = run(config, replace(setting, batch=batch), device, 0, limit).peak
            except InputError:
                return False
        return peaks[batch] <= limit

    low, high = 0, 1
    while fits(high):
        low, high = high, 2 * high
    while high - low > max(1, low // 16):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def parameter_shapes(config: LongstrandConfig, head: str) -> dict[str, tuple[int, ...]]:
    """List the weights of a network and their shapes; a tied decoder is the word embedding."""
    network = shapes_only(NETWORKS[head], _with_head(config, head))
    tied = {"lm_head.decoder.weight"} if config.tie_word_embeddings else set()
    return {name: tuple(weight.shape) for name, weight in network.named_parameters() if name not in tied}


def _with_head(config: LongstrandConfig, head: str) -> LongstrandConfig:
    if head not in ("encoder", "masked_lm") and not config.head(head):
        config = config.replace(heads={head: {"kind": head, "problem": "single_label", "num_outputs": 2}})
    return only_head(config, None if head == "encoder" else head)


def _estimate(config: LongstrandConfig, setting: Setting, device: str, sizes: dict[str, tuple[int, ...]]) -> Measured:
    """Calculate a step on a card from FLOPs, bytes moved and the tensors that layers keep."""
    if device not in GPUS:
        raise UsageError(f"unknown device '{device}'{nearest(device, GPUS)}; known: cpu, cuda, {', '.join(GPUS)}.")
    card, half = GPUS[device], setting.precision == "bf16"
    if half and "bf16" not in card:
        raise UsageError(f"{device} has no bf16 units; ask for --precision fp32, or for a card that has them.")
    short, tokens = 2 if half else 4, setting.batch * setting.length
    matrices = sum(prod(shape) for name, shape in sizes.items() if len(shape) == 2 and ".layers." in f".{name}")
    size, train = config.hidden_size, setting.mode == "train"
    share = (MASKED_SHARE if train else 1.0) if setting.head == "masked_lm" else 0.0
    flops = training_flops_per_token(
        matrix_parameters=matrices,
        num_layers=config.num_hidden_layers,
        hidden_size=size,
        length=round(_seen(config, setting.length)),
        head_parameters=size * config.vocab_size,
        head_share=share,
    )
    flops *= tokens * (1 / 3 if not train else 4 / 3 if setting.checkpointing else 1)
    inner = config.intermediate_size / size * (4 if config.gated_mlp else 2)
    layer = tokens * size * (4 * (4 if config.hidden_dropout else 2) + short * (6 + inner))
    kept = layer if not train else layer * config.num_hidden_layers
    if setting.checkpointing and train:
        kept = layer + 4 * tokens * size * config.num_hidden_layers
    logits = tokens * share * config.vocab_size * (12 + 2 * short if train else short)
    held = sum(map(prod, sizes.values())) * ((16 if train else 4) + (2 if half else 0))
    moved = held + (3 if train else 1) * (layer * config.num_hidden_layers + logits)
    peak = card["bf16" if half else "fp32"]
    seconds = max(flops / (peak * 1e12), moved / (card["bandwidth"] * 1e9)) / GPU_EFFICIENCY
    return Measured(round(held + kept + logits), seconds)


def _seen(config: LongstrandConfig, length: int) -> float:
    """Average, over the layers, the tokens that a token attends to."""
    memory = config.memory
    width = min(length, memory.segment_length) if memory else length
    total = 0.0
    for layer in range(config.num_hidden_layers):
        layout = make_layout(config, layer)
        if is_full(config, layer):
            total += width
        elif layout is not None:
            blocks = layout.shape[-1] + 5 if layout.dim() == 4 else float(layout.float().mean()) * layout.shape[-1]
            total += min(width, blocks * config.attention.block_size)
        else:
            total += min(width, 2 * (config.attention.window // 2) + 1)
    return total / config.num_hidden_layers


def measure_step(
    config: LongstrandConfig, setting: Setting, device: str, steps: int, limit: int | None = None
) -> Measured:
    """Take steps in a process of its own: a copy of one that has loaded the libraries, which the first call starts.

    Raises:
        InputError: a step does not fit into the memory (or into ``limit`` bytes).
        ConfigError: it fails otherwise.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(["longstrand.models.pretrained"])
    try:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(_within, limit, config.to_dict(), setting, device, steps).result()
    except Exception as error:
        last = f"{type(error).__name__}: {error}".strip().splitlines()[-1]
        killed = isinstance(error, BrokenProcessPool | MemoryError)
        if not killed and not any(word in last.lower() for word in MEMORY_WORDS):
            raise ConfigError(f"the step that was to be measured failed: {last}") from None
    raise InputError(
        f"a step of {setting.batch} x {setting.length:,} tokens does not fit into the memory of this machine; ask "
        "for a smaller --batch or --length, or for --gradient-checkpointing."
    )


def _within(limit: int | None, config: dict[str, Any], setting: Setting, device: str, steps: int) -> Measured:
    """Take steps in this process, which may have twice so many bytes."""
    if limit is not None and device == "cpu":
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_DATA, (2 * limit, resource.RLIM_INFINITY))
    return run_step(LongstrandConfig.from_dict(config), setting, device, steps)


def run_step(config: LongstrandConfig, setting: Setting, device: str, steps: int) -> Measured:
    """Take steps in this process; the first is not timed unless it is the only one."""
    from longstrand.models.pretrained import MODELS

    torch.manual_seed(0)
    model = MODELS[setting.head](_with_head(config, setting.head)).to(device)
    ids = torch.randint(5, max(6, config.vocab_size), (setting.batch, setting.length)).to(device)
    if config.memory is not None:
        for place, role in ((0, "cls_token_id"), (-1, "sep_token_id")):
            if (special := getattr(config.memory, role)) is not None:
                ids[:, place] = special
    train, options = setting.mode == "train", dict[str, Any]()
    model.train(train)
    if train and setting.checkpointing:
        model.gradient_checkpointing_enable()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    if train and setting.head == "masked_lm":
        options["labels"] = ids.masked_fill(torch.rand(ids.shape, device=ids.device) >= MASKED_SHARE, -100)

    def step() -> None:
        short = torch.autocast(device, torch.bfloat16) if setting.precision == "bf16" else nullcontext()
        with torch.enable_grad() if train else torch.inference_mode(), short:
            output = model(ids, **options)
            loss = output[0] if options or not train else output[0].float().square().mean()
        if train:
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    seconds = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else peak_resident()
    return Measured(peak, min(seconds[1:] or seconds))
