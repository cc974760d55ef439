"""Ways to fine-tune: what is trained, what is stored, and that it comes back as it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from longstrand.config import build
from longstrand.errors import CheckpointError, ConfigError, UsageError
from longstrand.inference.predict import predict
from longstrand.models.adapters import adapter_config, adapter_names, add_adapter
from longstrand.models.checkpoint import load_model, load_network
from longstrand.tokenization.hub import load_tokenizer
from longstrand.training.finetune import finetune
from longstrand.training.methods import FinetuneMethod, measured_cost
from longstrand.training.run_folder import TrainingResult
from longstrand.training.settings import FinetuneConfig
from tests.toys import tiny_checkpoint
from tests.training.test_finetune import predictions, two_kinds, write


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("tables")
    sizes = {"train": 48, "valid": 22, "test": 25}
    return {
        name: str(write(folder / f"{name}.csv", ["sequence", "label"], two_kinds(size, seed)))
        for seed, (name, size) in enumerate(sizes.items())
    }


def settings(path: Path, output: Path, tables: dict[str, str], way: Any, **changes: Any) -> FinetuneConfig:
    training = {"epochs": 2, "batch_size": 8, "learning_rate": 0.02, "tensorboard": False, "threads": 1}
    values = {
        "output": str(output),
        "model": {"path": str(path), **changes.pop("model", {})},
        "data": tables | changes.pop("data", {}),
        "method": way,
        "training": training | {"device": "cpu"} | changes,
        "evaluation": {"resamples": 0, "baselines": False},
    }
    return build(FinetuneConfig, values)


def run(path: Path, output: Path, tables: dict[str, str], way: Any, **changes: Any) -> TrainingResult:
    return finetune(settings(path, output, tables, way, **changes))


WAYS = {"lora": "lora", "ia3": "ia3", "loha": {"peft": "LoHa", "r": 2, "target_modules": ["up"]}, "frozen": "frozen"}


@pytest.mark.parametrize("name", list(WAYS))
def test_each_way_trains_its_weights_and_comes_back(
    name: str, model: Path, tables: dict[str, str], tmp_path: Path
) -> None:
    result = run(model, tmp_path / "run", tables, WAYS[name])
    cost = result.report["cost"]
    assert 0 < cost["trained_parameters"] < cost["parameters"]
    assert cost["storage_bytes"] == 4 * cost["trained_parameters"]
    assert cost["seconds"] > 0 and cost["peak_memory_bytes"] > 1e6 and cost["peak_memory_of"] == "process"
    assert result.model is not None
    loaded, base = load_model(result.model), load_model(model, "encoder")
    test = [row[0] for row in two_kinds(25, 2)]
    tokenizer = load_tokenizer(result.model)
    said = list(predict(loaded, test, tokenizer=tokenizer, output="probabilities", strand=loaded.reading.strand))
    kept = [float(row["probability_1"]) for row in predictions(result.folder)]
    assert np.allclose([row.values[1] for row in said], kept, atol=1e-5)
    network = load_network(result.model)
    again = list(predict(network, test, tokenizer=tokenizer, output="probabilities", strand=network.reading.strand))
    assert np.allclose([row.values for row in again], [row.values for row in said], atol=1e-6)
    changed = {
        key for key, value in loaded.encoder.state_dict().items() if not torch.equal(value, base.state_dict()[key])
    }
    if name == "frozen":
        assert not changed and (result.model / "model.safetensors").exists()
        return
    assert not (result.model / "model.safetensors").exists()
    places = {"lora": ("query", "value"), "ia3": ("key", "value", "down"), "loha": ("up",)}[name]
    assert {key.split(".")[-2] for key in changed} == set(places)
    folder_facts = json.loads((result.model / "adapter_config.json").read_text())
    assert folder_facts["base_model_name_or_path"] == str(model.resolve())


def test_an_interrupted_adapter_run_ends_as_if_it_had_not_been(
    model: Path, tables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from longstrand.training.trainer import RunCallback

    whole = run(model, tmp_path / "whole", tables, "lora", epochs=3)

    def stop(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunCallback, "on_step_begin", stop, raising=False)
    with pytest.raises(KeyboardInterrupt):
        run(model, tmp_path / "cut", tables, "lora", epochs=3)
    assert (tmp_path / "cut" / "checkpoint-6" / "adapter_model.safetensors").exists()
    monkeypatch.undo()
    resumed = run(model, tmp_path / "cut", tables, "lora", epochs=3)
    first, second = (load_model(result.model).state_dict() for result in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_regression_with_an_adapter_predicts_natural_units(model: Path, tmp_path: Path) -> None:
    rows = [(text, 50 + 20 * kind + 0.1 * number) for number, (text, kind) in enumerate(two_kinds(60))]
    table = write(tmp_path / "t.csv", ["sequence", "label"], rows)
    result = run(model, tmp_path / "run", {"train": str(table)}, "ia3")
    said = list(predict(load_model(result.model), [rows[0][0]], tokenizer=load_tokenizer(result.model)))
    assert 40 < said[0].values[0] < 90


def test_the_base_must_be_the_one_that_was_adapted(model: Path, tables: dict[str, str], tmp_path: Path) -> None:
    base = shutil.copytree(model, tmp_path / "base")
    result = run(base, tmp_path / "run", tables, "lora", epochs=1)
    shutil.rmtree(base)
    with pytest.raises(CheckpointError, match=r"its base model is not at .*base_model_name_or_path"):
        load_model(result.model)
    tiny_checkpoint(base, num_hidden_layers=2)
    with pytest.raises(CheckpointError, match="not those that this adapter was trained on"):
        load_model(result.model)
    shutil.rmtree(base)
    shutil.copytree(model, base)
    load_model(result.model)
    from safetensors.torch import load_file, save_file

    file = result.model / "adapter_model.safetensors"
    tensors = load_file(file)
    first = next(iter(tensors))
    save_file({name: tensor for name, tensor in tensors.items() if name != first} | {"odd": torch.zeros(1)}, file)
    with pytest.raises(CheckpointError, match=r"2 problems with the adapter: missing: base_model.*unexpected: odd"):
        load_model(result.model)
    file.write_bytes(b"no")
    with pytest.raises(CheckpointError, match="missing or damaged"):
        load_model(result.model)
    config = json.loads((result.model / "config.json").read_text())
    (result.model / "config.json").write_text(json.dumps(config | {"heads": {}}))
    with pytest.raises(CheckpointError, match="declares no head"):
        load_model(result.model)


def test_what_is_refused(model: Path, tables: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"PEFT has no adapter 'lorra' \(did you mean 'lora'"):
        run(model, tmp_path / "a", tables, "lorra")
    with pytest.raises(UsageError, match=r"'lora' has no setting 'rank'"):
        run(model, tmp_path / "b", tables, {"peft": "lora", "rank": 4})
    with pytest.raises(UsageError, match="'prompt_tuning' cannot be used here: it adds virtual tokens"):
        adapter_config("prompt_tuning", {})
    with pytest.raises(UsageError, match="'adalora' cannot be used here: it reallocates"):
        adapter_config("AdaLoRA", {})
    with pytest.raises(UsageError, match="'lora' refuses its settings"):
        adapter_config("lora", {"r": 4, "layers_pattern": "x"})
    with pytest.raises(UsageError, match="'lora' does not fit this model"):
        run(model, tmp_path / "c", tables, {"peft": "lora", "target_modules": ["nothing"]})
    with pytest.raises(ConfigError, match="an adapter on random weights could not be loaded again"):
        settings(model, tmp_path / "d", tables, "lora", model={"init": "random"})
    with pytest.raises(ConfigError, match="the method 'full' has no settings, got r"):
        settings(model, tmp_path / "e", tables, {"name": "full", "settings": {"r": 1}})
    with pytest.raises(ConfigError, match=r"unknown key 'method\.nam'"):
        settings(model, tmp_path / "f", tables, {"nam": "lora"})
    assert {"lora", "ia3", "loha", "lokr", "oft", "vera", "ln_tuning"} <= set(adapter_names())


def test_a_way_is_written_in_three_forms() -> None:
    forms = ["LoRA", {"peft": "lora"}, {"name": "lora", "settings": {}}]
    assert all(FinetuneMethod.model_validate(form) == FinetuneMethod(name="lora") for form in forms)
    assert FinetuneMethod.model_validate({"peft": "lora", "r": 4}).settings == {"r": 4}
    assert not FinetuneMethod().is_adapter and FinetuneMethod(name="ia3").is_adapter


def test_without_peft_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "peft.mapping", None)
    with pytest.raises(UsageError, match=r"pip install 'longstrand\[adapters\]'"):
        adapter_names()


def test_the_cost_is_of_what_is_inside() -> None:
    with measured_cost() as before:
        pass
    with measured_cost() as cost:
        block = np.ones(30_000_000)
        del block
    assert cost["peak_memory_bytes"] > before["peak_memory_bytes"] + 100_000_000


def test_damaged_state_of_an_adapter_run_is_refused(model: Path, tmp_path: Path) -> None:
    from longstrand.models.adapters import load_adapter_weights, save_adapter_files

    wrapped = [
        add_adapter(
            load_model(model, "sequence", new_head={"problem": "single_label", "num_outputs": 2}),
            "lora",
            {"target_modules": targets},
            base=model,
        )
        for targets in (["query"], ["key"])
    ]
    save_adapter_files(wrapped[0], tmp_path)
    with pytest.raises(CheckpointError, match="tensors of the adapter are missing or unexpected"):
        load_adapter_weights(wrapped[1], tmp_path)
