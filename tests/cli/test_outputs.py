"""An output never replaces an input, whatever the verb."""

from __future__ import annotations

from pathlib import Path

import pytest

from longstrand.cli.main import main

MODEL = "mixed_6mer_1m"
ROWS = "sequence,label\n" + "".join(f"{'ACGT' * 5}{'ACGT'[i % 4]}{'ACGT'[i // 4 % 4]},{i % 2}\n" for i in range(16))
VERBS = {
    "predict": f"predict {MODEL} in/t.csv --output in/t.csv --overwrite",
    "embed": f"embed {MODEL} in/t.csv --output in/t.csv --overwrite",
    "tokenizer train": "tokenizer train in/g.fa --kind kmer --k 3 --output in --overwrite",
    "tokenizer inspect": f"tokenizer inspect {MODEL} in/g.fa --plot in/g.fa",
    "pretrain": "pretrain data=in/model/g.fa output=in",
    "finetune": f"finetune --model {MODEL} --train in/t.csv --test in/model/t.csv --valid in/t.csv --output in",
    "evaluate": f"evaluate {MODEL} in/t.csv --output in",
    "probe": f"probe --model {MODEL} --train in/model/t.csv --output in",
    "benchmark run": f"benchmark run --data in --model {MODEL} --output in",
    "benchmark build": "benchmark build own --source own --output .",
    "convert": "convert in/model --to published --output in/model --force",
    "convert above": "convert in/model --to published --output in --force",
    "data from-gtf": "data from-gtf promoters/a.gff3 in/g.fa --task promoters --output .",
    "motifs scan": "motifs scan in/t.csv in/m.meme --output in/t.csv",
    "motifs discover": "motifs discover in/g.fa in/t.csv --output in/model/../g.fa",
    "motifs marginalize": f"motifs marginalize {MODEL} in/t.csv ACGT --motifs in/m.csv --output in/m.csv",
    "variants evaluate": "variants evaluate in/t.csv --label label --output in/t.csv",
    "haplotype": "haplotype in/t.csv --genome in/g.fa --sample a --region chr1 --output in/h.fa --map in/g.fa",
    "explain attention": f"explain attention {MODEL} in/report.json --output in",
    "report of predict": f"predict {MODEL} in/report.json --output p.csv --report in",
    "demo": "demo --genome in/g.fa --labels in --output in",
}


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_replaces_its_input(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {
        "in/t.csv": ROWS,
        "in/m.csv": ROWS,
        "in/report.json": ROWS,
        "in/g.fa": f">chr1\n{'ACGT' * 50}\n",
        "in/model/config.json": '{"model_type": "longstrand"}',
        "in/model/g.fa": f">chr1\n{'ACGT' * 50}\n",
        "in/model/t.csv": ROWS,
        "promoters/a.gff3": "##gff-version 3\n",
        "own/t/train.csv": ROWS,
        "own/t/test.csv": ROWS,
    }
    for name, content in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(content)
    with pytest.raises(SystemExit) as ended:
        main(VERBS[verb].split())
    assert "an output must not replace the input" in capsys.readouterr().err and ended.value.code == 2
    found = {str(path): path.read_text() for path in Path().rglob("*") if path.is_file()}
    assert found == files
