"""A tiny model and small tables of two classes, for fine-tuning."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.toys import tiny_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Path]:
    from tests.training.test_finetune import two_kinds, write

    sizes = {"train": 48, "valid": 22, "test": 25}
    return {
        name: write(tmp_path / f"{name}.csv", ["sequence", "label"], two_kinds(size, seed))
        for seed, (name, size) in enumerate(sizes.items())
    }
