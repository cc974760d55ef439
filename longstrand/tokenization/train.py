"""Train a byte-pair vocabulary on DNA; k-mers need no training (`kmer.make_kmer`)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from longstrand.errors import InputError
from longstrand.runtime import generator, write_json
from longstrand.tokenization.base import Tokenizer
from longstrand.tokenization.bpe import BpeTokenizer
from longstrand.tokenization.files import read_object
from longstrand.tokenization.merges import learn_merges

logger = logging.getLogger(__name__)

SPECIAL_TOKENS = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "-")
_TO_N = str.maketrans("RYSWKMBDHVU", "NNNNNNNNNNT")


class SequenceSource(Protocol):
    """A genome, as `longstrand.genome.fasta.Genome`: names, lengths, letters."""

    @property
    def contigs(self) -> Mapping[str, int]:
        """Length of each contig."""
        ...

    def fetch(self, chrom: str, start: int, end: int) -> str:
        """Read the letters of ``[start, end)``."""
        ...


def train_bpe(
    sequences: Iterable[str], *, vocab_size: int = 4096, min_frequency: int = 2, max_token_length: int = 64
) -> BpeTokenizer:
    """Learn a vocabulary by merging the most frequent neighbours.

    The special ids are GENA's: ``[UNK]`` 0, ``[CLS]`` 1, ``[SEP]`` 2, ``[PAD]`` 3, ``[MASK]`` 4 and ``-`` 5, which
    stands for a gap of ten or more N; then A, C, G, N, T and the merges. N never takes part in a merge.

    Args:
        sequences: upper-case pieces of DNA (A, C, G, T, N) of any length; memory grows with their total, some 10 to
            15 bytes a base.
        vocab_size: number of ids, special ones included; fewer if the text is too small.
        min_frequency: a pair rarer than this is not merged.
        max_token_length: longest token in bases.

    Raises:
        ValueError: ``vocab_size`` leaves no room for merges.
        InputError: the sequences are empty.
    """
    from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
    from tokenizers import Tokenizer as LibraryTokenizer

    smallest = len(SPECIAL_TOKENS) + 5
    if vocab_size <= smallest:
        raise ValueError(f"vocab_size is more than {smallest} (special tokens and single letters), got {vocab_size}.")
    tokens, merges, num_letters = learn_merges(
        sequences, first_id=len(SPECIAL_TOKENS), vocab_size=vocab_size, min_frequency=min_frequency,
        max_token_length=max_token_length,
    )  # fmt: skip
    if not num_letters:
        raise InputError("there is nothing to train a tokenizer on: all sequences are empty.")
    vocab = {token: number for number, token in enumerate((*SPECIAL_TOKENS, *tokens))}
    library = LibraryTokenizer(models.BPE(vocab, merges, unk_token="[UNK]"))
    library.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    gaps = normalizers.Replace(Regex("N{10,}"), "-")
    library.normalizer = normalizers.Sequence([normalizers.Strip(), gaps])
    library.pre_tokenizer = pre_tokenizers.Split(Regex("[-N]"), "isolated")
    library.decoder = decoders.Fuse()
    library.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tokenizer = BpeTokenizer(library.to_str())
    if tokenizer.vocab_size < vocab_size:
        logger.warning("the text gives only %d of %d tokens; use more sequence", tokenizer.vocab_size, vocab_size)
    return tokenizer


def sample_pieces(
    genomes: Sequence[SequenceSource], *, num_bases: int, piece_length: int = 1000, seed: int = 0
) -> Iterator[str]:
    """Draw random pieces of genomes as they are, runs of N too: uniform over all bases.

    Letters are made upper case, other nucleotide codes become N. No base is drawn twice: if ``num_bases`` is not less
    than the genomes have, every base is used once, in shuffled pieces.

    Args:
        genomes: where to read.
        num_bases: stop after so many bases (the last piece may exceed it).
        piece_length: bases of a piece; the last one of a contig may be shorter.
        seed: the same seed gives the same pieces.

    Raises:
        ValueError: ``num_bases`` or ``piece_length`` is below 1.
        InputError: nothing is left to read.
    """
    if num_bases < 1 or piece_length < 1:
        raise ValueError(f"num_bases and piece_length are at least 1, got {num_bases} and {piece_length}.")
    contigs = [(genome, *item) for genome in genomes for item in genome.contigs.items()]
    tiles = np.array([-(-length // piece_length) for _, _, length in contigs], dtype=np.int64)
    if not tiles.sum():
        raise InputError("the genomes have no bases to sample from.")
    rng = generator(seed, 0, "tokenizer training pieces")
    ends = np.cumsum(tiles)
    total = 0
    for tile in rng.permutation(int(ends[-1])):
        if total >= num_bases:
            return
        which = int(np.searchsorted(ends, tile, side="right"))
        genome, chrom, length = contigs[which]
        start = int(tile - (ends[which] - tiles[which])) * piece_length
        piece = genome.fetch(chrom, start, min(start + piece_length, length)).upper().translate(_TO_N)
        total += len(piece)
        yield piece


def describe_training(tokenizer: Tokenizer, **details: Any) -> dict[str, Any]:
    """Summarise a trained vocabulary for the run record."""
    lengths = tokenizer.bases_per_id[tokenizer.dna_token_ids]
    return {
        "vocab_size": tokenizer.vocab_size,
        "fingerprint": tokenizer.fingerprint,
        "longest_token": int(lengths.max(initial=0)),
        "mean_token_length": float(lengths.mean()) if len(lengths) else 0.0,
        **details,
    }


def write_training_record(folder: Path, details: Mapping[str, Any]) -> None:
    """Add how a vocabulary was made to its ``longstrand.json``."""
    described = read_object(folder / "longstrand.json")
    write_json(folder / "longstrand.json", described | {"tokenizer_training": dict(details)})
