"""Letters that a language model expects, as tracks: heights by hand, the numbers of `base_probabilities`, the hub."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import longstrand as ls
from longstrand.cli.main import main
from longstrand.errors import UsageError
from longstrand.genome.coverage import open_signal
from longstrand.report.locus import Logo
from tests.inference.test_contigs import dna
from tests.toys import tiny_checkpoint

pytest.importorskip("pybigtools")


def test_a_logo_is_the_information_of_masked_bases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, text = tiny_checkpoint(tmp_path / "m"), dna(60)
    (tmp_path / "g.fa").write_text(f">c\n{text}\n")
    (tmp_path / "r.bed").write_text("c\t20\t44\n")
    words = ["logo", str(model), str(tmp_path / "g.fa"), "--regions", str(tmp_path / "r.bed"), "--window", "60"]
    with pytest.raises(SystemExit) as end:
        main([*words, "--output", str(tmp_path / "logo")])
    assert end.value.code == 0 and "wrote 24 bases of 1 contig(s)" in capsys.readouterr().out
    heights = Logo(ls.base_probabilities(model, text)).heights()
    for place, base in enumerate("ACGT"):
        found = open_signal(tmp_path / "logo" / f"{base}.bw").values("c", 0, 60)
        np.testing.assert_allclose(found[20:44], heights[20:44, place], rtol=1e-4, atol=1e-6)
        assert np.isnan(found[:20]).all() and np.isnan(found[44:]).all()
    hub = (tmp_path / "logo" / "trackDb.txt").read_text()
    assert "container multiWig" in hub and "logo on" in hub and hub.count("parent longstrandLogo") == 4
    with pytest.raises(UsageError, match="say where: regions"):
        ls.write_logo(model, tmp_path / "g.fa", tmp_path / "x")
    with pytest.raises(UsageError, match="bin_size is not for a logo"):
        ls.write_logo(model, tmp_path / "g.fa", tmp_path / "x", chroms="c", bin_size=5)
