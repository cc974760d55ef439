"""Opening folders, good and bad."""

from __future__ import annotations

import pytest

from longstrand.errors import TokenizerError
from longstrand.tokenization.hub import load_tokenizer
from longstrand.tokenization.kmer import make_kmer
from tests.tokenization.test_bpe import definition


def test_files_and_folders(tmp_path):
    (tmp_path / "tokenizer.json").write_text(definition(["A C"]))
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 1e30, "mask_token": {"content": "[SEP]"}}')
    for path in (tmp_path, str(tmp_path), tmp_path / "tokenizer.json"):
        tokenizer = load_tokenizer(path)
        assert tokenizer.encode("AC").input_ids.tolist() == [1, 11, 2]
        assert tokenizer.max_tokens is None and tokenizer.mask_token_id == 2
    assert "vocab_size=12" in repr(tokenizer)
    (tmp_path / "vocab.txt").write_text(
        "\n".join(make_kmer(3, layout="dnabert", overlapping=True).token_strings) + "\n\n"
    )
    assert load_tokenizer(tmp_path / "vocab.txt").overlapping


def test_no_tokenizer(tmp_path):
    with pytest.raises(TokenizerError, match="no such folder"):
        load_tokenizer(tmp_path / "missing")
    with pytest.raises(TokenizerError, match="no tokenizer here"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", b"{", "not readable as JSON"),
        ("tokenizer.json", b'{"model": {"type": "WordLevel", "vocab": {"a": 0}}}', "this is no k-mer vocabulary"),
        ("tokenizer.json", b"\xff\xfe", "cannot be read"),
        ("vocab.txt", b"AA\nAA\n", "names a token twice"),
        ("vocab.txt", b"", "it is empty"),
        ("vocab.txt", b"[CLS]\nAA\nAC", "of 16 words of 2 bases it has 2"),
    ],
)
def test_damaged_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TokenizerError, match=message) as caught:
        load_tokenizer(tmp_path)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"), [("[1]", "an object is expected, found a list"), ("{", "not readable as JSON")]
)
def test_damaged_settings(tmp_path, content, message):
    (tmp_path / "tokenizer.json").write_text(definition([]))
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(tmp_path)
