"""The compiled engine in awkward surroundings: forks, threads, caches that are damaged or cannot be written."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import longstrand
from longstrand.tokenization import automaton
from longstrand.tokenization.bpe import BpeTokenizer
from longstrand.tokenization.engine import as_bytes
from tests.tokenization.test_bpe import definition, random_dna

MERGES = ["A C", "AC G", "T T", "TT TT", "G AC"]


def encode_in_child(tokenizer: BpeTokenizer, text: str) -> list[int]:
    return tokenizer.encode(text).input_ids.tolist()


@pytest.mark.slow
def test_works_in_a_forked_process():
    tokenizer = BpeTokenizer(definition(MERGES))
    text = random_dna(1, 3000)
    tokenizer.encode_batch([text] * 200, num_threads=2)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        results = pool.starmap(encode_in_child, [(tokenizer, text)] * 4)
    assert all(ids == tokenizer.encode(text).input_ids.tolist() for ids in results)


def test_lanes_agree_with_one_scan_where_the_warm_up_is_too_short():
    """A run of one letter keeps its phase over any distance, so the guessed states are wrong and must be mended."""
    tokenizer = BpeTokenizer(definition(["A A", "AA A", "AAA AAA", "A C"]))
    for extra in range(7):
        text = "A" * (4000 + extra) + "C"
        ids = tokenizer.encode(text, add_special_tokens=False).input_ids
        names = [tokenizer.token_strings[i] for i in ids]
        assert "".join(names) == text
        pieces = [tokenizer.encode("A" * (400 + extra % 6), add_special_tokens=False).input_ids[0]]
        assert ids[0] == pieces[0] and len(set(ids[:600].tolist())) == 1


def test_a_compiled_automaton_is_cached_and_a_damaged_one_is_made_again(monkeypatch, tmp_path):
    monkeypatch.setattr(automaton, "cache_dir", lambda: tmp_path)
    merges = [("G", "T"), ("A", "GT")]
    first = automaton.compile_merges(merges, "ACGT")
    (path,) = (tmp_path / "tokenizers").iterdir()
    monkeypatch.setattr(automaton, "_build", lambda *_: pytest.fail("built again"))
    assert np.array_equal(automaton.compile_merges(merges, "ACGT").step, first.step)
    monkeypatch.undo()
    monkeypatch.setattr(automaton, "cache_dir", lambda: tmp_path)
    good = path.read_bytes()
    wrong = {"step": first.step + 1000, "token": first.token}
    for damage in (
        b"",
        b"PK nonsense",
        good[: len(good) // 2],
        wrong,
        {"step": first.step[:, :2], "token": first.token},
    ):
        if isinstance(damage, bytes):
            path.write_bytes(damage)
        else:
            np.savez(path, **damage)
        assert np.array_equal(automaton.compile_merges(merges, "ACGT").step, first.step)
    assert path.read_bytes()[:2] == b"PK"


def test_an_unwritable_cache_is_no_obstacle(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(automaton, "cache_dir", lambda: tmp_path / "file")
    assert len(automaton.compile_merges([("A", "A")], "ACGT").token) > 4


def test_characters_become_bytes():
    assert as_bytes("AC\n").tolist() == [65, 67, 10]
    assert as_bytes("Aé\U0001f9ec\ud800").tolist() == [65, 233, 255, 255]


@pytest.mark.slow
def test_a_read_only_install_without_a_home(tmp_path):
    """The package on a read-only path, no writable home or cache: it still encodes."""
    package = Path(longstrand.__file__).parent
    shutil.copytree(package, tmp_path / "site" / "longstrand", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (tmp_path / "site").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    code = "from longstrand.tokenization.train import train_bpe\nt = train_bpe(['ACGTACGGT' * 9], vocab_size=14)\n"
    code += "import longstrand\nassert 'site' in longstrand.__file__ and t.uses_engine\nprint(len(t.encode('ACGT')))"
    keep = {name: value for name, value in os.environ.items() if name in ("PATH", "LD_LIBRARY_PATH")}
    keep |= {"PYTHONPATH": str(tmp_path / "site"), "HOME": "/proc/none", "PYTHONDONTWRITEBYTECODE": "1"}
    keep["TMPDIR"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", code], env=keep, cwd="/", capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and done.stdout.strip().isdigit(), done.stderr
