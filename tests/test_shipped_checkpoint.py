"""The checkpoint that ships: it loads strictly, and it knows more about yeast than chance."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

import longstrand
from longstrand.data.collate import Collator
from longstrand.data.examples import MaskedExamples
from longstrand.data.masking import MaskingConfig
from longstrand.data.windows import EvaluationWindows, HoldOut
from longstrand.genome.intervals import Interval
from longstrand.training.pretrain import hold_out_evaluation
from longstrand.variants.windows import default_window

FOLDER = Path(__file__).parents[1] / "longstrand" / "checkpoints" / "mixed_6mer_1m"


@pytest.mark.data
def test_the_shipped_checkpoint_beats_even_odds_on_held_out_yeast(shared: Path) -> None:
    model, tokenizer = longstrand.load_model(FOLDER, head="masked_lm"), longstrand.load_tokenizer(FOLDER)
    genome = shared / "data" / "genomes" / "scer_R64-1-1.fa.gz"
    held_out = (Interval("IV", 100_000, 130_000),)
    windows = EvaluationWindows(
        [genome], num_bases=756, holdout=HoldOut(intervals=held_out), alphabet=tokenizer.alphabet
    )
    masking = MaskingConfig(probability=0.3, mask=1.0, random=0.0)
    examples = MaskedExamples(windows, tokenizer, masking, max_tokens=128, seed=0)
    evaluate = hold_out_evaluation(
        examples,
        Collator(tokenizer.pad_token_id),
        bases_per_id=tokenizer.bases_per_id,
        batch_size=16,
        device=torch.device("cpu"),
    )
    with torch.no_grad():
        assert evaluate(model)["loss"] < math.log(4096) - 0.2


def test_it_reads_lower_case_as_upper_case_through_auto_tokenizer() -> None:
    sequence = "ACGTNACGTTGCA" * 7 + "ACGN"
    ours, model = longstrand.load_tokenizer(FOLDER), longstrand.load_model(FOLDER, head="masked_lm")
    stock = AutoTokenizer.from_pretrained(FOLDER)
    expected = ours.encode(sequence).input_ids.tolist()
    assert stock(sequence)["input_ids"] == stock(sequence.lower())["input_ids"] == expected
    assert model.require_tokenizer().fingerprint == ours.fingerprint == model.tokenizer_fingerprint


def test_it_says_how_long_its_training_windows_were() -> None:
    model = longstrand.load_model(FOLDER, head="masked_lm")
    assert model.reading is not None and model.reading.longest_bases == 126 * 6
    assert default_window(model) == 756
