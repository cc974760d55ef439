"""Adapters (LoRA, IA3, ...) by PEFT: put them on a model, save them as PEFT folders, load them merged.

A folder of ours holds what PEFT writes (``adapter_config.json``, ``adapter_model.safetensors``) plus ``config.json``
with the head, the tokenizer, and ``longstrand.json`` with the fingerprint of the base model's weights. `load_model`
and everything behind it read such a folder like any other: the adapter is merged into its base, strictly.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor

from longstrand.errors import CheckpointError, UsageError, nearest
from longstrand.models.config import LongstrandConfig
from longstrand.models.tensors import fingerprint_weights, misfits, read_record
from longstrand.runtime import read_json

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
HEAD = "classifier"
_TABLE = tomllib.loads(Path(__file__).with_name("adapters.toml").read_text(encoding="utf-8"))
NEED_MORE: dict[str, str] = _TABLE["need_more"]
"""Methods of PEFT that an encoder with a head cannot be trained with as it stands, and why."""

DEFAULTS: dict[str, dict[str, Any]] = _TABLE["defaults"]
"""Settings of a method where the user gives none; other methods get the projections of `TARGETS`."""

TARGETS = ["query", "value"]


def adapter_names() -> list[str]:
    """List the methods of the installed PEFT that can be used, in lower case.

    Raises:
        UsageError: PEFT is not installed.
    """
    return sorted(set(_configs()) - set(NEED_MORE) - _prompt_methods())


def _configs() -> dict[str, type]:
    try:
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    except ImportError:
        raise UsageError(
            "adapters need the package peft; install it with: pip install 'longstrand[adapters]'."
        ) from None
    return {str(kind.value).lower(): config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}


def _prompt_methods() -> set[str]:
    from peft.config import PromptLearningConfig

    return {name for name, config in _configs().items() if issubclass(config, PromptLearningConfig)}


def adapter_config(name: str, settings: Mapping[str, Any], *, trained_whole: Sequence[str] = (HEAD,)) -> Any:
    """Make the PEFT configuration of a method.

    Args:
        name: as in PEFT, in lower case: ``lora``, ``ia3``, ``loha``, ``oft``, ...
        settings: keywords of its configuration; `DEFAULTS` fill in what is missing.
        trained_whole: modules that are trained and saved whole, beside the adapter.

    Raises:
        UsageError: PEFT is missing, or has no such method or setting, or the method does not fit an encoder.
    """
    known = _configs()
    name = name.lower()
    if name in NEED_MORE or (name in known and name in _prompt_methods()):
        why = NEED_MORE.get(name, "it adds virtual tokens, which have no place on the DNA")
        raise UsageError(f"the adapter '{name}' cannot be used here: {why}; use one of: {', '.join(adapter_names())}.")
    if name not in known:
        names = adapter_names()
        raise UsageError(f"PEFT has no adapter '{name}'{nearest(name, names)}; known: {', '.join(names)}.")
    allowed = [entry.name for entry in fields(known[name]) if entry.init]
    for key in settings:
        if key not in allowed:
            raise UsageError(f"the adapter '{name}' has no setting '{key}'{nearest(key, allowed)}; see PEFT's manual.")
    defaults = DEFAULTS.get(name, {"target_modules": TARGETS} if "target_modules" in allowed else {})
    values: dict[str, Any] = {**defaults, **settings}
    if "modules_to_save" in allowed:
        values.setdefault("modules_to_save", list(trained_whole))
    try:
        return known[name](**values)
    except (TypeError, ValueError) as error:
        raise UsageError(f"the adapter '{name}' refuses its settings: {error}.") from None


def add_adapter(model: Any, name: str, settings: Mapping[str, Any], *, base: str | Path) -> Any:
    """Wrap a model so that only the adapter and the head are trained.

    Args:
        model: with a sequence or token head.
        name: as in `adapter_config`.
        settings: as in `adapter_config`.
        base: folder (or hub id) that the model was loaded from; the adapter refers to it.

    Returns:
        A ``peft.PeftModel``; it answers to everything that the model does.

    Raises:
        UsageError: as `adapter_config`, or no module of the model is a target.
    """
    from peft import get_peft_model

    config = adapter_config(name, settings, trained_whole=_head_modules(model))
    try:
        wrapped = get_peft_model(model, config)
    except ValueError as error:
        raise UsageError(f"the adapter '{name}' does not fit this model: {str(error).splitlines()[0]}") from None
    # Only now: PEFT replaces it by the name that the model was loaded by, which may be relative.
    config.base_model_name_or_path = str(Path(base).resolve()) if Path(base).is_dir() else str(base)
    return wrapped


def _head_modules(model: Any) -> list[str]:
    """Name the modules of the head that have weights of their own, and the memory, which may be fresh, too.

    PEFT can only swap such leaves when merging.
    """
    leaves = getattr(model, HEAD).named_modules()
    memory = [] if model.encoder.memory is None else ["encoder.memory"]
    names = [f"{HEAD}.{name}" for name, part in leaves if next(part.parameters(recurse=False), None) is not None]
    return [*names, *memory]


def is_wrapped(model: Any) -> bool:
    """Say whether a model carries an adapter; does not import PEFT."""
    return hasattr(model, "peft_config") and hasattr(model, "base_model") and hasattr(model, "merge_and_unload")


class AdapterFolder:
    """What `longstrand.models.checkpoint.save_checkpoint` needs to write an adapter in place of a whole model."""

    def __init__(self, wrapped: Any) -> None:
        self.wrapped = wrapped
        self.config = wrapped.base_model.model.config

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the adapter, without the model card, and the configuration with the head."""
        save_adapter_files(self.wrapped, folder)
        self.config.save_pretrained(folder)


def save_adapter_files(wrapped: Any, folder: str | Path, state: Mapping[str, Tensor] | None = None) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors``; nothing is looked up on the network."""
    wrapped.save_pretrained(str(folder), save_embedding_layers=False, state_dict=state)
    (Path(folder) / "README.md").unlink(missing_ok=True)
    path = Path(folder) / ADAPTER_CONFIG
    content = read_json(path)
    for key in ("target_modules", "feedforward_modules", "modules_to_save"):
        if isinstance(content.get(key), list):
            content[key] = sorted(content[key])  # PEFT keeps sets, whose order changes from run to run
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def load_adapter_weights(wrapped: Any, folder: str | Path) -> None:
    """Read the adapter and the head from files that `save_adapter_files` wrote.

    Raises:
        CheckpointError: a tensor of the adapter is not there, or one is there that the model does not know.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    found = load_file(Path(folder) / ADAPTER_WEIGHTS)
    expected = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    strange = sorted(found.keys() ^ expected.keys())
    if strange:
        raise CheckpointError(f"{folder}: tensors of the adapter are missing or unexpected: {', '.join(strange)}.")
    set_peft_model_state_dict(wrapped, found)


def base_facts(base: str | Path) -> dict[str, Any]:
    """Give what is remembered of the base model: where it was, and the fingerprint of each weights file."""
    return {"path": str(base), "weights": fingerprint_weights(base)}


def is_adapter(folder: Path) -> bool:
    """Say whether a folder holds an adapter rather than a whole model."""
    return (Path(folder) / ADAPTER_CONFIG).is_file()


def read_merged(folder: Path, load_base: Callable[..., Any]) -> tuple[LongstrandConfig, dict[str, Tensor]]:
    """Load the base of an adapter folder and merge the adapter into it.

    Args:
        folder: the adapter's folder.
        load_base: `longstrand.models.checkpoint.load_model`.

    Returns:
        The configuration with the head, and all tensors by our names.

    Raises:
        CheckpointError: the base is not where the adapter says, its weights are others than the adapter was trained on,
            or a tensor of the adapter is missing or unexpected.
        UsageError: PEFT is not installed.
    """
    _configs()
    from peft import PeftModel
    from peft.utils import ModulesToSaveWrapper

    folder = Path(folder)
    config = LongstrandConfig.from_dict(dict(read_json(folder / "config.json")))
    head = next(iter(config.heads.values()), None)
    base = _base_of(folder)
    if head is None:
        raise CheckpointError(
            f"{folder}: config.json of this adapter declares no head; it was not written by Longstrand."
        )
    changes = {} if config.memory is None else {"memory": dict(config.memory)}
    model = load_base(base, head.kind, new_head=head.model_dump(exclude={"kind"}), changes=changes)
    _check_tensors(folder, model)
    wrapped = PeftModel.from_pretrained(model, str(folder))
    for name, module in list(wrapped.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):  # most methods merge only what has a weight, not the memory
            wrapped.set_submodule(name, module.modules_to_save["default"])
    return config, {name: tensor.detach() for name, tensor in wrapped.merge_and_unload().state_dict().items()}


def _base_of(folder: Path) -> str:
    base = str(read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path"))
    remembered = read_record(folder).get("provenance", {}).get("base", {})
    if not remembered.get("weights"):
        return base
    try:
        found = fingerprint_weights(base)
    except CheckpointError as error:
        raise CheckpointError(
            f"{folder}: this is an adapter, and its base model is not at {base}; write the place of the base model to "
            f"base_model_name_or_path in {ADAPTER_CONFIG}. ({error})"
        ) from None
    if found != remembered["weights"]:
        raise CheckpointError(f"{folder}: the weights in {base} are not those that this adapter was trained on.")
    return base


def _check_tensors(folder: Path, model: Any) -> None:
    """Compare the names and shapes in the file with what the adapter's configuration implies for this model."""
    import copy

    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    config = PeftConfig.from_pretrained(str(folder))
    config.inference_mode = False
    wrapped = get_peft_model(copy.deepcopy(model), config)
    state = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    expected = {name: tuple(tensor.shape) for name, tensor in state.items()}
    try:
        with safe_open(str(folder / ADAPTER_WEIGHTS), framework="pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder / ADAPTER_WEIGHTS}: missing or damaged ({error}).") from None
    problems = misfits(expected, found)
    if problems:
        raise CheckpointError(f"{folder}: {len(problems)} problems with the adapter: {'; '.join(problems)}.")
