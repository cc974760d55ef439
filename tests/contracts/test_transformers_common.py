"""The tests that transformers runs on its own models, run on ours.

Set LONGSTRAND_TRANSFORMERS_TESTS to the folder ``tests`` of transformers' source distribution of the installed version
(``pip download --no-deps --no-binary :all: transformers==VERSION``, unpacked), and install ``parameterized``. That
distribution holds the common model tests without those of generation and of export, which encoders have no use for.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import unittest
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from longstrand.models.config import LongstrandConfig
from longstrand.models.pretrained import MODELS

PACKAGE = "transformers_common"
MARKERS = (
    "accelerate_tests", "bitsandbytes", "flash_attn_test", "flash_attn_3_test", "flash_attn_4_test",
    "torch_compile_test", "torch_export_test", "generate", "flex_attention_test", "is_training_test",
)  # fmt: skip
REFUSED = {
    "test_cannot_load_with_meta_device_context_manager": "the weights are mapped from the file whatever the context",
    "test_correct_missing_keys": "a head that the files lack is an error, unless new_head asks for one",
    "test_model_weights_reload_no_missing_tied_weights": "files without the weights are an error, not a warning",
}
"""Tests that fail by design, with the reason; docs/FAMILIES.md names each."""


class ToyInputs:
    """What transformers asks of a model's tester: a small configuration, and a batch of ids."""

    batch_size, seq_length, hidden_size, num_hidden_layers, num_attention_heads, is_training = 3, 7, 32, 2, 4, True

    def prepare_config_and_inputs_for_common(self) -> tuple[LongstrandConfig, dict[str, torch.Tensor]]:
        config = LongstrandConfig(
            vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
            max_position_embeddings=32, type_vocab_size=2, hidden_dropout=0.0, attention_dropout=0.0, pad_token_id=0,
            heads={
                "sequence": {"kind": "sequence", "problem": "single_label", "num_outputs": 3},
                "token": {"kind": "token", "problem": "single_label", "num_outputs": 3},
            },
        )  # fmt: skip
        ids = torch.randint(5, 40, (self.batch_size, self.seq_length))
        return config, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@pytest.fixture(scope="module")
def common(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """Import transformers' common model tests, or skip."""
    named = os.environ.get("LONGSTRAND_TRANSFORMERS_TESTS")
    if not named or not (Path(named) / "test_modeling_common.py").is_file():
        pytest.skip("set LONGSTRAND_TRANSFORMERS_TESTS to the folder tests of transformers' source distribution")
    pytest.importorskip("parameterized")
    for marker in MARKERS:
        request.config.addinivalue_line("markers", f"{marker}: of transformers")
    before = set(sys.modules)
    for name in (PACKAGE, f"{PACKAGE}.generation", f"{PACKAGE}.exporters"):
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = [named] if name == PACKAGE else []
    for place, mixin in (
        ("generation.test_utils", "GenerationTesterMixin"),
        ("exporters.test_export", "ExportTesterMixin"),
    ):
        module = ModuleType(f"{PACKAGE}.{place}")
        setattr(module, mixin, type(mixin, (), {}))
        sys.modules[module.__name__] = module
    tests = importlib.import_module(f"{PACKAGE}.test_modeling_common")
    tests.set_config_for_less_flaky_test = lambda config: setattr(config, "norm_eps", 1.0)  # its other keys are unknown
    yield tests
    for name in set(sys.modules) - before:
        if name.startswith(PACKAGE):
            del sys.modules[name]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["encoder", "masked_lm", "sequence", "token"])
def test_transformers_own_model_tests_pass(common: ModuleType, kind: str) -> None:
    model_class = MODELS[kind]

    class Case(common.ModelTesterMixin, unittest.TestCase):
        all_model_classes = (model_class,)

        def setUp(self) -> None:
            self.model_tester = ToyInputs()
            self.model_tester.is_training = kind != "encoder"  # which has no loss

        def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
            inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
            if return_labels and kind != "encoder":
                shape = inputs["input_ids"].shape[:1] if kind == "sequence" else inputs["input_ids"].shape
                inputs["labels"] = torch.zeros(shape, dtype=torch.long)
            return inputs

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Case).run(result)
    failed = {re.findall(r"\.(test_\w+)", case.id())[-1]: text for case, text in [*result.failures, *result.errors]}
    skipped = len(result.skipped)
    print(f"{kind}: {result.testsRun - len(failed) - skipped} passed, {skipped} skipped, {len(failed)} refused")
    unexpected = {name: text.strip().splitlines()[-1] for name, text in failed.items() if name not in REFUSED}
    assert not unexpected, "\n".join(f"{name}: {text}" for name, text in unexpected.items())
    assert result.testsRun - skipped > 80
