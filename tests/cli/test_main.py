"""The command table: help, version, typos, errors, exit codes."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from longstrand import __version__
from longstrand.cli import main as cli
from longstrand.errors import InputError


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        cli.main(list(words))
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0 and all(verb in out for verb in cli.VERBS)
    code, out, _ = run(capsys)
    assert code == 2 and "Usage" in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"longstrand {__version__}\n", "")


def test_typo_names_the_nearest_verb(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "pretrian")
    assert code == 2 and "did you mean 'pretrain'?" in err
    code, _, err = run(capsys, "--hlep")
    assert code == 2 and "no option '--hlep'" in err


def test_errors_are_one_sentence_and_debug_shows_the_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(words: list[str]) -> int:
        raise InputError("genome.fa: no such file.")

    monkeypatch.setattr(cli, "_dispatch", fail)
    assert run(capsys, "predict") == (1, "", "longstrand: genome.fa: no such file.\n")
    with pytest.raises(InputError):
        cli.main(["predict", "--debug"])


def test_a_full_disk_is_one_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(words: list[str]) -> int:
        raise OSError(28, "No space left on device", "runs/metrics.jsonl")

    monkeypatch.setattr(cli, "_dispatch", fail)
    code, _, err = run(capsys, "pretrain")
    assert code == 1 and err.startswith("longstrand: runs/metrics.jsonl: No space left on device; check space")


def test_too_little_memory_is_one_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> int:
        raise RuntimeError("CUDA out of memory. Tried to allocate 20 MiB\nmore")

    monkeypatch.setattr(cli, "_dispatch", fail)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    code, _, err = run(capsys, "predict")
    assert code == 1 and err.count("\n") == 1
    assert err.startswith(
        "longstrand: process 1: not enough memory (CUDA out of memory. Tried to allocate 20 MiB); use "
    )


def test_a_command_of_one_process_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, err = run(capsys, "evaluate", "model", "t.csv")
    assert code == 2 and "'evaluate' is for one process; run it without torchrun" in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("design m s.fa --forbidden A --forbidden=C", "--forbidden is given 2 times"),
        ("predict m s.fa -o x --output y", "--output is given 2 times"),
        ("pretrain training.steps=1 training.steps=2", "'training.steps' is given twice with different values"),
    ],
)
def test_what_would_be_lost_is_refused(words: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, *words.split())
    assert code != 0 and sentence in err and len(err.splitlines()) == 1


NO_COLUMN, COMMANDS = "no sequence column 'sequence'; columns are: dna, kind; call yours 'sequence'", "commands are: "


@pytest.mark.parametrize(
    ("words", "expected", "said"),
    [
        ("motifs scan t.csv m.meme -o o.tsv", 1, f"{NO_COLUMN}."),
        ("tokenizer inspect mixed_6mer_1m t.csv", 1, f"{NO_COLUMN}, or name it with --column."),
        ("explain species mixed_6mer_1m t.csv --label kind -o o", 1, f"{NO_COLUMN}."),
        ("embed mixed_6mer_1m t.csv -o o.csv", 1, f"{NO_COLUMN}, or name it with --sequence-column."),
        ("explain t.csv", 2, "did you mean 'longstrand explain attribute t.csv'?"),
        ("explain atribute m t.csv", 2, "did you mean 'attribute'?"),
        ("variants m a.vcf --genome g.fa", 2, "did you mean 'longstrand variants score m a.vcf --genome g.fa'?"),
        ("benchmark x", 2, "commands are: list, build, run, report."),
        ("data x.gtf y.fa", 2, "did you mean 'longstrand data from-gtf x.gtf y.fa'?"),
    ],
)
def test_hints_name_only_what_the_command_or_group_has(
    words: str, expected: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("dna,kind\nACGTACGTACGT,a\n")
    (tmp_path / "m.meme").write_text("MEME version 4\n\nMOTIF a\nletter-probability matrix: w= 1 nsites= 4\n 1 0 0 0\n")
    code, _, message = run(capsys, *words.split())
    assert code == expected and said in message
    assert code == 1 or (COMMANDS in message and message.count("\n") == 1)


def test_interrupt(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_dispatch", interrupt)
    code, _, err = run(capsys, "demo")
    assert code == 130 and "resumes" in err


@pytest.mark.parametrize("verb", list(cli.VERBS))
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, verb, "--help")
    assert code == 0 and "Usage" in out
    assert run(capsys, verb, "-h") == (0, out, "")


@pytest.mark.parametrize(
    ("line", "found"), [("longstrand pre", {"predict", "pretrain"}), ("longstrand predict --stra", {"--strand"})]
)
def test_a_shell_completes_verbs_and_options(
    line: str, found: set[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_LONGSTRAND_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
    code, out, _ = run(capsys)
    assert code == 0 and set(out.split()) == found


def test_options_of_a_run_count_when_they_are_zero_or_short() -> None:
    """``--trials 0`` is no absence of ``--trials``; ``-o`` is ``--output`` in every command that writes."""
    import typer
    from typer.testing import CliRunner

    from longstrand.benchmarks.probe_run import ProbeConfig
    from longstrand.cli.options import run_options

    app, found = typer.Typer(), []

    @app.command()
    @run_options("probe", example="x=1")
    def probe(read):
        found.append(read(ProbeConfig, plain={"data": "train"}))

    done = CliRunner().invoke(app, ["--model", "m", "--train", "t.csv", "-o", "out", "--trials", "0"])
    assert done.exit_code == 0, done.exception
    assert found[0].probe.trials == 0 and str(found[0].output) == "out"


def test_columns_are_named_alike_wherever_tables_are_read() -> None:
    content = tomllib.loads((Path(cli.__file__).parent / "runs.toml").read_text(encoding="utf-8"))
    for command in ("finetune", "benchmark", "probe"):
        assert {"--sequence-column", "--label-column,--label"} < set(content[command]), command
    assert "--sequence-column" in content["pretrain"]
