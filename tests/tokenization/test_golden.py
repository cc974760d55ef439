"""Every stored output of the published tokenizers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from longstrand.errors import TokenizerError
from longstrand.tokenization.base import Tokenizer
from longstrand.tokenization.hub import load_tokenizer
from longstrand.tokenization.kmer import make_kmer


def read(path: Path):
    if not path.exists():
        pytest.skip(f"{path.name} is not in the data folder")
    return json.loads(path.read_text())


def load(folder: Path) -> Tokenizer:
    if not folder.exists():
        pytest.skip(f"{folder.name} is not in the data folder")
    return load_tokenizer(folder)


def check_gena(cases: list, tokenizer: Tokenizer, name: str) -> None:
    for case in cases:
        expected, text = case[name], case["sequence"]
        full = tokenizer.encode(text)
        assert full.input_ids.tolist() == expected["ids"], case["name"]
        bare = tokenizer.encode(text, add_special_tokens=False)
        assert bare.input_ids.tolist() == expected["ids_no_special"], case["name"]
        for ours, theirs, index in zip(
            bare.offsets.tolist(), expected["offsets_no_special"], bare.input_ids, strict=True
        ):
            if tokenizer.token_strings[index] == "-" and ours != theirs:  # a gap: they give only its last N
                assert ours[1] == theirs[1] and set(text[ours[0] : ours[1]]) == {"N"} and ours[1] - ours[0] >= 10
            else:
                assert ours == theirs, case["name"]


def test_gena_t2t(shared):
    stored = read(shared / "golden/gena/tokenizer_t2t_cases.json")
    tokenizer = load(shared / "data/tokenizers/gena_t2t_1000h_multi_32k")
    assert tokenizer.uses_engine
    check_gena(stored["cases"], tokenizer, "t2t_1000h_multi_32k")
    pair = stored["meta"]["pair_case"]
    encoding = tokenizer.encode_pair(pair["a"], pair["b"])
    assert encoding.input_ids.tolist() == pair["ids"]
    assert encoding.token_type_ids.tolist() == pair["type_ids"]
    assert encoding.num_bases == 16 and encoding.offsets[-2].tolist() == [15, 16]


def test_gena_human(shared):
    stored = read(shared / "golden/gena/tokenizer_t2t_cases.json")
    check_gena(stored["cases"], load(shared / "data/tokenizers/gena_human_bpe_32k"), "human_BPE_32k")


def test_gena_human_10m(shared):
    stored = read(shared / "golden/gena/tokenizer_t2t_cases.json")
    folder = shared / "data/tokenizers/gena_human_bpe_32k_all_chr_10M"
    check_gena(stored["cases"], load(folder), "human_BPE_32k_all_chr_10M")


def test_gena_notebook_bins(shared):
    stored = read(shared / "golden/gena/enformer_bins_notebook_ids.json")
    tokenizer = load(shared / "data/tokenizers/gena_t2t_1000h_multi_32k")
    size, sequence = stored["bin_size"], stored["sequence"]
    ids = [tokenizer.cls_token_id]
    for start in range(0, len(sequence), size):
        ids += tokenizer.encode(sequence[start : start + size], add_special_tokens=False).input_ids.tolist()
        ids.append(tokenizer.sep_token_id)
    assert ids[: len(stored["input_ids"])] == stored["input_ids"]


@pytest.mark.parametrize("version", ["4.29.2", "5.23.0"])
def test_dnabert2(shared, version):
    stored = read(shared / f"golden/dnabert2/tokenizer_{version}.json")
    tokenizer = load(shared / "golden/dnabert2/tokenizer_files")
    assert tokenizer.uses_engine
    for row in stored["rows"]:
        encoding = tokenizer.encode(row["sequence"])
        assert encoding.input_ids.tolist() == row["ids"], row["name"]
        assert row["offsets"] in (None, encoding.offsets.tolist()), row["name"]
        assert row["tokens"] in (None, [tokenizer.token_strings[i] for i in encoding.input_ids])


def test_dnabert2_pair(shared):
    stored = read(shared / "golden/dnabert2/tokenizer_5.23.0.json")
    tokenizer = load(shared / "golden/dnabert2/tokenizer_files")
    first = stored["pair"]["input_ids"].index(tokenizer.sep_token_id)
    texts = [tokenizer.decode(stored["pair"]["input_ids"][1:first])]
    texts.append(tokenizer.decode(stored["pair"]["input_ids"][first + 1 : -1]))
    encoding = tokenizer.encode_pair(*texts)
    assert encoding.input_ids.tolist() == stored["pair"]["input_ids"]
    assert encoding.token_type_ids.tolist() == stored["pair"]["token_type_ids"]


@pytest.mark.parametrize("k", [3, 4, 5, 6])
def test_dnabert(shared, k):
    stored = read(shared / "golden/dnabert1/tokenizer.json")[str(k)]
    tokenizer = make_kmer(k, overlapping=True, layout="dnabert")
    assert tokenizer.vocab_size == stored["vocab_size"]
    assert tokenizer.token_strings[5] == stored["first"] and tokenizer.token_strings[-1] == stored["last"]
    for row in stored["rows"]:
        ids = tokenizer.encode(row["sequence"]).input_ids.tolist()
        cut = ids if len(ids) <= 512 else [*ids[:511], tokenizer.sep_token_id]
        assert cut == row["ids_max512"], row["name"]
        if "ids_max1024" in row:
            assert in_pieces(ids[1:-1], tokenizer)[:1024] == row["ids_max1024"], row["name"]


def in_pieces(ids: list[int], tokenizer: Tokenizer) -> list[int]:
    """Wrap every 510 tokens apart, as DNABERT-XL does with longer inputs."""
    count = len(ids) // 510 + 1
    pieces = [ids[510 * i : 510 * (i + 1)] for i in range(count)]
    return [i for piece in pieces for i in (tokenizer.cls_token_id, *piece, tokenizer.sep_token_id)]


@pytest.mark.parametrize("version", ["4.29.2", "5.23.0"])
@pytest.mark.parametrize(("name", "layout"), [("v1_6mer", "nt_v1"), ("v2_6mer", "nt_v2")])
def test_nucleotide_transformer_hub(shared, version, name, layout):
    rows = read(shared / f"golden/nt/tokenizer_hf_esm_{version}.json")[name]["rows"]
    loaded = load(shared / f"golden/nt/hf_tokenizer_{name}")
    built = make_kmer(6, layout=layout)
    assert loaded.vocab == built.vocab and loaded.fingerprint == built.fingerprint
    for row in rows:
        assert loaded.encode(row["sequence"]).input_ids.tolist() == row["ids"], row["name"]


@pytest.mark.parametrize(
    ("name", "layout", "k"), [("v1_6mer", "nt_v1_jax", 6), ("v2_6mer", "nt_v2", 6), ("v2_3mer_codon", "nt_v2", 3)]
)
def test_nucleotide_transformer_jax(shared, name, layout, k):
    stored = read(shared / "golden/nt/tokenizer_jax_repo.json")[name]
    tokenizer = make_kmer(k, layout=layout, unknown="error")
    assert tokenizer.vocab_size == stored["vocab_size"]
    for text, index in stored["special"].items():
        assert tokenizer.vocab[text] == index
    for row in stored["rows"]:
        if "error" in row:
            with pytest.raises(TokenizerError, match=r"not in the k-mer vocabulary|grid"):
                tokenizer.encode(row["sequence"])
        else:
            assert tokenizer.encode(row["sequence"]).input_ids.tolist() == row["ids"], row["name"]


def test_dnabert_from_its_published_file(shared, tmp_path):
    """Ids of every stored row through a folder with ``vocab.txt``, as the hub has it."""
    stored = read(shared / "golden/dnabert1/tokenizer.json")
    for k in (3, 4, 5, 6):
        words = make_kmer(k, overlapping=True, layout="dnabert").token_strings
        (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
        tokenizer = load_tokenizer(tmp_path)
        for row in stored[str(k)]["rows"]:
            ids = tokenizer.encode(row["sequence"]).input_ids.tolist()
            assert (ids if len(ids) <= 512 else [*ids[:511], tokenizer.sep_token_id]) == row["ids_max512"], row["name"]


@pytest.mark.parametrize("version", ["4.29.2", "5.23.0"])
def test_dnabert2_roles(shared, version):
    stored = read(shared / f"golden/dnabert2/tokenizer_{version}.json")
    tokenizer = load(shared / "golden/dnabert2/tokenizer_files")
    assert {role: getattr(tokenizer, f"{role}_token_id") for role in stored["special"]} == stored["special"]
    assert tokenizer.vocab_size == stored["vocab_size"]


def test_every_golden_tokenizer_file_is_read_here(shared):
    """A file of cases that nobody reads would pass for tested."""
    source = Path(__file__).read_text()
    found = sorted(path.name for path in (shared / "golden").glob("*/tokenizer*.json"))
    assert found
    for name in found:
        stem = name.replace("4.29.2", "{version}").replace("5.23.0", "{version}")
        assert name in source or stem in source, f"{name} is exercised by no test"
