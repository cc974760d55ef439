"""Small genomes on disk and a single-base tokenizer whose every id can be read off."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from longstrand.tokenization.base import SpecialTokenTemplate


def write_fasta(path: Path, contigs: dict[str, str], *, width: int = 60) -> Path:
    lines = []
    for name, sequence in contigs.items():
        lines.append(f">{name}")
        lines += [sequence[start : start + width] for start in range(0, len(sequence), width)]
    path.write_text("\n".join(lines) + "\n")
    return path


def random_dna(length: int, *, seed: int) -> str:
    return "".join("ACGT"[code] for code in np.random.default_rng(seed).integers(0, 4, size=length))


class BaseTokenizer:
    """[UNK]0 [CLS]1 [SEP]2 [PAD]3 [MASK]4 A5 C6 G7 T8 N9; with ``step`` 2 every second base is part of the first."""

    vocab_size = 10
    mask_token_id: int | None = 4
    pad_token_id = 3
    overlapping = False
    alphabet = "ACGTN"
    template = SpecialTokenTemplate(prefix=(1,), suffix=(2,))
    dna_token_ids = np.array([5, 6, 7, 8], dtype=np.int32)
    bases_per_id = np.array([0] * 5 + [1] * 5, dtype=np.int32)

    def __init__(self, step: int = 1) -> None:
        self.step = step

    def encode_ids(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        ids = [5 + "ACGTN".index(letter) for letter in text[:: self.step]]
        offsets = [(start, min(start + self.step, len(text))) for start in range(0, len(text), self.step)]
        return np.array(ids, dtype=np.int32), np.array(offsets, dtype=np.int32).reshape(-1, 2)
