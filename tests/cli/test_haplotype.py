"""``longstrand haplotype`` on a file that can be done by hand."""

from __future__ import annotations

import json

import pytest

from longstrand.cli.main import main
from tests.genome.test_haplotypes import write


def run(words: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["haplotype", *map(str, words)])
    return int(ended.value.code)


def test_both_haplotypes_with_their_map(tmp_path, capsys):
    (tmp_path / "g.fa").write_text(">c\nACGTACGTAC\n")
    rows = [("c", 2, ".", "C", "T", ".", ".", ".", "GT", "0|1"), ("c", 5, ".", "A", "AGG", ".", ".", ".", "GT", "1|0")]
    vcf = write(tmp_path / "in.vcf", rows, ["S"])
    words = [vcf, "--genome", tmp_path / "g.fa", "--sample", "S", "--region", "c:1-8", "-o", tmp_path / "o.fa"]
    assert run([*words, "--map", tmp_path / "o.tsv", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sequences"] == 2
    assert (tmp_path / "o.fa").read_text() == ">c:1-8|S|1\nACGTAGGCGT\n>c:1-8|S|2\nATGTACGT\n"
    lines = ["name\tstart\tcontig\tcontig_start\tlength"]
    lines += ["c:1-8|S|1\t0\tc\t0\t5", "c:1-8|S|1\t7\tc\t5\t3", "c:1-8|S|2\t0\tc\t0\t8"]
    assert (tmp_path / "o.tsv").read_text().splitlines() == lines
    assert run([*words, "--haplotype", 2, "--region", "c"]) == 0
    assert (tmp_path / "o.fa").read_text().splitlines()[1::2] == ["ATGTACGT", "ATGTACGTAC"]
    capsys.readouterr()
    for more, message in (
        (["--haplotype", 3], "'S' has 2 haplotypes on c; there is no number 3"), (["--unphased", "some"], "unphased"),
        (["--sample", "T"], "no sample 'T'"), (["-o", vcf], "must not replace the input"),
    ):  # fmt: skip
        place = words.index(more[0]) if more[0] in words else len(words)
        assert run([*words[:place], *words[place + 2 :], *more]) in (1, 2) and message in capsys.readouterr().err
