"""Inputs as GENA-LM's scripts make them: equal to the golden outputs of those scripts on real rows, and by hand."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from longstrand.benchmarks.suites.published_inputs import _trims, binned_input, deepsea_input, splice_input
from longstrand.errors import TokenizerError
from longstrand.tokenization.base import SpecialIds, Tokenizer
from longstrand.tokenization.hub import load_tokenizer

csv.field_size_limit(10**9)


@pytest.fixture(scope="module")
def tokenizer(shared: Path) -> Tokenizer:
    return load_tokenizer(shared / "data/tokenizers/gena_t2t_1000h_multi_32k")


@pytest.mark.parametrize("max_tokens", [128, 512, 1024, 3024, 4096])
def test_spliceai_rows_as_published(shared: Path, tokenizer: Tokenizer, max_tokens: int) -> None:
    golden = np.load(shared / "golden/gena/data_spliceai/expected.npz")
    with open(shared / "data/gena_examples/spliceai_test_rows.csv") as file:
        for number, (sequence, *labels) in enumerate(csv.reader(file)):
            found = splice_input(tokenizer, sequence, [int(float(label)) for label in labels], max_tokens)
            for name in ("input_ids", "labels", "labels_ohe", "labels_mask"):
                np.testing.assert_array_equal(getattr(found, name), golden[f"L{max_tokens}/{name}"][number])


def test_deepsea_rows_as_published(shared: Path, tokenizer: Tokenizer) -> None:
    golden = np.load(shared / "golden/gena/data_deepsea/expected.npz")
    with gzip.open(shared / "data/gena_examples/deepsea_8kb_rows.csv.gz", "rt") as file:
        for number, row in zip(range(8), csv.reader(file)):
            for size in (64, 512, 1300, 2048):
                input_ids, attention_mask = deepsea_input(tokenizer, row[0], size)
                np.testing.assert_array_equal(input_ids, golden[f"L{size}/input_ids"][number])
                np.testing.assert_array_equal(attention_mask, golden[f"L{size}/attention_mask"][number])


def test_bins_as_in_the_published_notebook(shared: Path, tokenizer: Tokenizer) -> None:
    notebook = json.loads((shared / "golden/gena/enformer_bins_notebook_ids.json").read_text())
    assert binned_input(tokenizer, notebook["sequence"]).tolist() == notebook["input_ids"]


def test_a_tokenizer_without_separators_is_refused() -> None:
    bare = SimpleNamespace(special=SpecialIds(cls=1, pad=3))
    with pytest.raises(TokenizerError, match=r"need a tokenizer with .CLS., .SEP. and .PAD."):
        binned_input(bare, "ACGT")  # type: ignore[arg-type]


def test_trims_by_hand() -> None:
    # The longer context is cut first; what is left over is shared, an odd token goes from the left.
    assert _trims(10, 4, 3) == (3, 0)
    assert _trims(10, 4, 8) == (7, 1)
    assert _trims(4, 10, 9) == (2, 7)
    assert _trims(5, 5, 3) == (2, 1)
