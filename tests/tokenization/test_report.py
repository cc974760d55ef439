"""What `longstrand tokenizer inspect` counts, by hand."""

from __future__ import annotations

import json
import math

import pytest

from longstrand.errors import InputError
from longstrand.tokenization.bpe import BpeTokenizer
from longstrand.tokenization.kmer import make_kmer
from longstrand.tokenization.report import inspect_tokenizer, plot_report, reverse_complement_share
from tests.tokenization.test_bpe import definition

GAPPED = {"type": "Replace", "pattern": {"Regex": "N{3,}"}, "content": "-"}


def test_by_hand(tmp_path):
    tokenizer = BpeTokenizer(definition(["A C", "AC G", "G T", "T T"], normalizer=GAPPED))
    report = inspect_tokenizer(tokenizer, ["ACGTT", "ACNNNNNGTX", ""])  # ACG TT | AC - GT [UNK]
    assert (report.num_texts, report.num_bases, report.num_tokens) == (3, 15, 6)
    assert report.bases_per_token == 2.5
    assert report.length_counts == [0, 0, 3, 1]
    assert report.token_lengths == {"mean": 2.25, "median": 2, "p5": 2, "p95": 3, "max": 3}
    assert report.unknown_share == pytest.approx(1 / 6) and report.gap_share == pytest.approx(5 / 15)
    assert report.num_dna_tokens == 8 and report.used_share == pytest.approx(4 / 8)
    assert report.longest_used_tokens[0] == ("ACG", 1)
    assert report.entropy_bits == pytest.approx(math.log2(6))
    # A, C, G, T, AC, GT have a reverse complement (each other); ACG (CGT) and TT (AA) have none.
    assert report.reverse_complement_share == pytest.approx(6 / 8)
    assert report.rank_counts == [(rank, 1) for rank in range(1, 7)]
    assert json.loads(json.dumps(report.to_dict()))["kind"] == "bpe"
    plot_report(report, tmp_path / "new" / "plot.png", tokenizer.bases_per_id[tokenizer.dna_token_ids])
    assert (tmp_path / "new" / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_kmers_are_symmetric():
    assert reverse_complement_share(make_kmer(4)) == 1.0
    report = inspect_tokenizer(make_kmer(3, overlapping=True), ["ACGTTN"])
    assert report.num_tokens == 4 and report.overlapping and report.bases_per_token == 1.5
    assert report.unknown_share == 0.25


def test_no_tokens():
    with pytest.raises(InputError, match="gives no tokens"):
        inspect_tokenizer(make_kmer(3, overlapping=True), ["AC", ""])


def test_gena_has_few_reverse_complements(shared):
    folder = shared / "data/tokenizers/gena_t2t_1000h_multi_32k"
    if not folder.exists():
        pytest.skip("GENA's tokenizer is not in the data folder")
    from longstrand.tokenization.hub import load_tokenizer

    tokenizer = load_tokenizer(folder)
    assert len(tokenizer.dna_token_ids) == 31967
    assert round(reverse_complement_share(tokenizer) * 31967) == 868
