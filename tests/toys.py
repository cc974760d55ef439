"""Tiny inputs that can be computed by hand; every axis has a different size so that swapped axes cannot pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def tiny_checkpoint(folder: Path, *, k: int = 2, **changes: Any) -> Path:
    """Save a random masked LM of one layer with a non-overlapping k-mer tokenizer; ``changes`` go to the config."""
    from longstrand.models.checkpoint import save_checkpoint
    from longstrand.models.config import preset
    from longstrand.models.pretrained import LongstrandForMaskedLM
    from longstrand.runtime import seed_everything
    from longstrand.tokenization.kmer import make_kmer

    tokenizer = make_kmer(k, overlapping=False)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    heads = {"masked_lm": {"kind": "masked_lm"}}
    fixed = {"vocab_size": tokenizer.vocab_size, "pad_token_id": tokenizer.pad_token_id, "heads": heads}
    seed_everything(0)
    model = LongstrandForMaskedLM(preset("tiny", **{**size, **fixed, **changes}))
    return save_checkpoint(model, tokenizer, folder)
