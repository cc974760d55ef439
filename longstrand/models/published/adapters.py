"""PEFT adapters that were trained on published code (LoRA, IA3), put on our model by the names of its modules.

The tensors are renamed with the family's key map. A fused projection of the original is several of ours: the B of a
LoRA is cut into as many pieces and A is shared, which is exact. A head that the adapter brings along is loaded whole.
Facts: dnabert_nt.md 1.8 and 3.6. Adapters of our own models need none of this: see `longstrand.models.adapters`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from longstrand.errors import CheckpointError, UsageError
from longstrand.models.checkpoint import load_model
from longstrand.models.config import LongstrandConfig
from longstrand.models.published.families import FAMILIES, PROBLEMS, Family
from longstrand.models.published.to_ours import rename_weight
from longstrand.models.tensors import misfits, read_file
from longstrand.runtime import read_json

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_TASKS = {"SEQ_CLS": "sequence", "TOKEN_CLS": "token"}
_PARTS = ("lora_A.weight", "lora_B.weight", "ia3_l", "base_layer.weight", "base_layer.bias", "weight", "bias")


@dataclass(frozen=True)
class _Adapter:
    """An adapter by our names.

    Attributes:
        settings: adapter_config.json.
        parts: our module -> its adapter tensors by the names of PEFT (``lora_A.weight``, ...).
        scales: our module -> (rank, alpha) of a LoRA.
        head: tensors of the head that comes with it, by our names.
    """

    settings: dict[str, Any]
    parts: dict[str, dict[str, Tensor]]
    scales: dict[str, tuple[int, float]]
    head: dict[str, Tensor]


def load_adapter(
    folder: str | Path,
    adapter: str | Path,
    *,
    problem: str | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str = torch.float32,
) -> Any:
    """Load a published model with an adapter that was trained on it by its original code and PEFT.

    Args:
        folder: the model, published files or ours made from them.
        adapter: folder with adapter_config.json and adapter_model.safetensors (or .bin, of plain tensors).
        problem: single_label, multi_label or regression, of the head in the adapter; adapters do not say. By default
            regression for one output, else single_label.
        device: as in `load_model`.
        dtype: as in `load_model`.

    Returns:
        A ``peft.PeftModel`` in evaluation mode, whose adapter and head can be trained further;
        ``merge_and_unload()`` makes a plain model of it.

    Raises:
        CheckpointError: not LoRA or IA3, or a tensor of the adapter has no place in the model; all problems at once.
        UsageError: PEFT is not installed.
    """
    try:
        from peft import get_peft_model, set_peft_model_state_dict
    except ImportError:
        raise UsageError(
            "adapters need the package peft; install it with: pip install 'longstrand[adapters]'."
        ) from None
    path = Path(adapter)
    settings = _read_settings(path)
    kind = _TASKS.get(settings.get("task_type") or "")
    model = load_model(folder, "encoder" if kind else None, device=device, dtype=dtype)
    family = FAMILIES.get(model.config.family)
    if family is None:
        raise CheckpointError(f"{folder}: family '{model.config.family}' has no published names; load it with peft.")
    found = _read_adapter(path, settings, family, kind)
    if kind:
        model = _with_head(model, kind, found, problem, where=str(path))
    _check_shapes(model, found, where=str(path))
    wrapped = get_peft_model(model, _config(found))
    state = {f"{module}.{name}": t for module, parts in found.parts.items() for name, t in parts.items()} | found.head
    state = {f"base_model.model.{name}": tensor.to(model.device, model.dtype) for name, tensor in state.items()}
    report: Any = set_peft_model_state_dict(wrapped, state)
    assert not report.unexpected_keys, report.unexpected_keys
    return wrapped.eval()


def _read_settings(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder}: no {CONFIG} here; this is no adapter folder.")
    settings = dict(read_json(folder / CONFIG))
    if settings.get("peft_type") not in ("LORA", "IA3"):
        raise CheckpointError(f"{folder}: peft_type '{settings.get('peft_type')}' is not supported; LORA and IA3 are.")
    odd = [key for key in ("use_dora", "layer_replication", "fan_in_fan_out") if settings.get(key)]
    odd += ["bias"] if settings.get("bias", "none") != "none" else []
    if odd:
        raise CheckpointError(f"{folder}: {CONFIG} sets {', '.join(odd)}, which is not supported for published names.")
    return settings


def _read_adapter(folder: Path, settings: dict[str, Any], family: Family, kind: str | None) -> _Adapter:
    """Read the tensors and give each its place; lists all that have none."""
    files = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    if not files:
        raise CheckpointError(f"{folder}: no weights here; expected {' or '.join(WEIGHTS)}.")
    found = _Adapter(settings, {}, {}, {})
    problems = []
    for name, tensor in _without_second_copies(read_file(files[0])).items():
        part = next((part for part in _PARTS if name.endswith(f".{part}")), None)
        module = name.removesuffix(f".{part}") if part else name
        kind_of_tensor = (part or "").rpartition(".")[2] if part and not part.startswith(("lora", "ia3")) else "weight"
        places = rename_weight(family, f"{module}.{kind_of_tensor}", kind)
        is_head = bool(places) and places[0].startswith("classifier.")
        if not places or part is None or (part.startswith(("weight", "bias", "base_layer")) and not is_head):
            problems.append(f"unexpected: {name}")
        elif part in ("lora_A.weight", "lora_B.weight", "ia3_l"):
            _place(found, part, places, tensor)
            if part == "lora_A.weight":
                scale = tensor.shape[0], _pattern(settings.get("alpha_pattern"), module, settings["lora_alpha"])
                found.scales.update({place.removesuffix(".weight"): scale for place in places})
        else:
            found.head[places[0]] = tensor
    if problems:
        raise CheckpointError(
            f"{folder}: {len(problems)} tensors have no place in a model of {family.name}: {'; '.join(problems)}."
        )
    return found


def _without_second_copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Strip the prefix; older PEFT wrote an adapter inside a saved head three times, and the plain one is active."""
    plain = {name.removeprefix("base_model.model."): tensor for name, tensor in tensors.items()}
    return {
        name: tensor
        for name, tensor in plain.items()
        if ".original_module." not in name and ".modules_to_save." not in name
    } | {
        short: tensor
        for name, tensor in plain.items()
        if ".modules_to_save." in name and (short := name.replace(".modules_to_save.", ".")) not in plain
    }


def _place(found: _Adapter, part: str, places: list[str], tensor: Tensor) -> None:
    """Give each of our modules its piece: outputs are cut, inputs are shared."""
    cut = part == "lora_B.weight" or (part == "ia3_l" and tensor.shape[0] > 1)
    pieces = tensor.chunk(len(places)) if cut else [tensor] * len(places)
    for place, piece in zip(places, pieces):
        found.parts.setdefault(place.removesuffix(".weight"), {})[part] = piece.clone()


def _pattern(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """Look a module up in a rank or alpha pattern of PEFT, whose keys match the end of its name."""
    hits = [value for key, value in (patterns or {}).items() if re.match(rf"(.*\.)?({key})$", module)]
    return hits[0] if hits else default


def _with_head(encoder: Any, kind: str, found: _Adapter, problem: str | None, *, where: str) -> Any:
    """Add the head that the adapter brings, in the form that its family has."""
    from longstrand.models.pretrained import MODELS

    output = found.head.get("classifier.output.weight")
    if output is None:
        raise CheckpointError(f"{where}: the adapter is for a {kind} task, but holds no output layer.")
    _merge_into_head(found)
    settings = _head_settings(encoder.config, kind, len(output), problem)
    model = MODELS[kind](encoder.config.replace(heads={kind: settings}))
    own = {name: tensor.shape for name, tensor in model.state_dict().items() if name.startswith("classifier.")}
    problems = misfits(own, {name: tensor.shape for name, tensor in found.head.items()})
    if problems:
        raise CheckpointError(f"{where}: {len(problems)} problems with the head: {'; '.join(problems)}.")
    model.load_state_dict({f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()} | found.head)
    model.name_or_path = encoder.name_or_path
    return model.to(encoder.device, encoder.dtype)


def _head_settings(config: LongstrandConfig, kind: str, outputs: int, problem: str | None) -> dict[str, Any]:
    problem = problem or ("regression" if outputs == 1 else "single_label")
    if problem not in PROBLEMS.values():
        raise UsageError(f"unknown problem '{problem}'; known: {', '.join(PROBLEMS.values())}.")
    rule = FAMILIES[config.family].heads.get(kind, {})
    form = {name: rule[name] for name in ("pooling", "form") if name in rule}
    return {"kind": kind, "problem": problem, "num_outputs": outputs, "pooling": "cls", **form}


def _merge_into_head(found: _Adapter) -> None:
    """Add a LoRA inside the head to the head's own weight, which was trained beside it."""
    for module in [module for module in found.parts if module.startswith("classifier.")]:
        parts = found.parts.pop(module)
        if "ia3_l" in parts or f"{module}.weight" not in found.head:
            raise CheckpointError(f"the adapter changes {module} and does not hold it; it cannot be loaded.")
        rank, alpha = found.scales.pop(module)
        scale = alpha / (rank**0.5 if found.settings.get("use_rslora") else rank)
        found.head[f"{module}.weight"] = (
            found.head[f"{module}.weight"] + scale * parts["lora_B.weight"] @ parts["lora_A.weight"]
        )


def _check_shapes(model: Any, found: _Adapter, *, where: str) -> None:
    """Compare each adapter tensor with the layer that it changes; list all misfits."""
    layers = dict(model.named_modules())
    problems = []
    for module, parts in sorted(found.parts.items()):
        layer = layers.get(module)
        if layer is None:
            problems.append(f"unexpected: {module} (the model has no such layer)")
            continue
        if "ia3_l" in parts:
            fits = tuple(parts["ia3_l"].shape) in ((1, layer.in_features), (layer.out_features, 1))
        else:
            shapes = [tuple(parts[name].shape) if name in parts else None for name in _PARTS[:2]]
            rank = found.scales[module][0] if module in found.scales else 0
            fits = shapes == [(rank, layer.in_features), (layer.out_features, rank)]
        if not fits:
            sizes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in sorted(parts.items()))
            problems.append(f"incomplete or mis-shaped: {module} ({sizes})")
    if problems:
        raise CheckpointError(f"{where}: {len(problems)} problems with the adapter: {'; '.join(problems)}.")


def _config(found: _Adapter) -> Any:
    """Make the PEFT configuration for our modules, each named in full."""
    from peft import IA3Config, LoraConfig

    settings, modules = found.settings, sorted(found.parts)
    # The layers one by one: PEFT cannot merge IA3 beside a saved module that has no weight of its own.
    heads = sorted({name.rpartition(".")[0] for name in found.head})
    common: dict[str, Any] = {"modules_to_save": heads or None}
    if settings["peft_type"] == "IA3":
        inner = [module for module in modules if found.parts[module]["ia3_l"].shape[0] == 1]
        return IA3Config(target_modules=modules, feedforward_modules=inner, **common)
    exact = {re.escape(module): scale for module, scale in found.scales.items()}
    return LoraConfig(
        r=settings["r"],
        lora_alpha=settings["lora_alpha"],
        lora_dropout=settings.get("lora_dropout") or 0.0,
        use_rslora=bool(settings.get("use_rslora")),
        target_modules=modules,
        rank_pattern={name: rank for name, (rank, _) in exact.items() if rank != settings["r"]},
        alpha_pattern={name: alpha for name, (_, alpha) in exact.items() if alpha != settings["lora_alpha"]},
        **common,
    )
