"""Settings that nobody gave: rates, epochs and strand by table and model; what counts as collapse; batches."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from longstrand.cli.pretrain import finish
from longstrand.data.targets import Task
from longstrand.errors import TrainingError, UsageError
from longstrand.training.examples import load_splits
from longstrand.training.finetune import choose, default_epochs, default_rates, default_strand, is_exhausted
from longstrand.training.run_folder import TrainingResult
from longstrand.training.trainer import split_batch
from longstrand.training.verbs import finetune
from tests.training.test_finetune import settings


def test_rates_epochs_and_strand_by_size() -> None:
    """30 * sqrt(1000 / 4000) = 15 epochs; 1e-3 * sqrt(5 / 500) = 1e-4, times 0.3, 1 and 3."""
    assert default_rates(1_000_000, "full") == (3e-4, 1e-3, 3e-3)
    assert default_rates(500_000_000, "full") == (3e-5, 1e-4, 3e-4)
    assert default_rates(1_000_000, "lora") == (9e-4, 3e-3, 9e-3)
    assert [default_epochs(rows, 32) for rows in (400, 1000, 4000, 1_000_000)] == [30, 30, 15, 3]
    assert default_epochs(74, 32) == 100  # two steps an epoch: 300 steps would be 150 epochs
    assert default_strand(Task("single_label", ("a", "b"), ("label",))) == "both"
    assert default_strand(Task("token", ("a", "b"), ("label",))) == "+"
    assert default_strand(Task("single_label", ("O", "B-exon", "I-exon"), ("label",))) == "+"


def fake(scores: dict[float, Any]) -> Any:
    """Give a training whose result is known: evaluations around a score, or (score, loss), or divergence (None)."""

    def train(config: Any, splits: Any) -> TrainingResult:
        assert splits.test is None and config.training.patience == 0 and not config.evaluation.page
        score = scores[config.training.learning_rate]
        if score is None:
            raise TrainingError("diverged")
        score, loss = score if isinstance(score, tuple) else (score, 1 - score)
        curve = [{"eval_mcc": score + shift, "eval_loss": loss} for shift in (-0.3, -0.01, 0.0, 0.01)]
        report = {"metric": "mcc", "curve": curve, "collapsed": score == 0, "steps": 4, "cost": {"seconds": 1.0}}
        return TrainingResult(Path("x"), Path("x"), report)

    return train


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ({3e-4: 0.0, 1e-3: 0.5, 3e-3: 0.4}, 1e-3),
        ({3e-4: 0.1, 1e-3: 0.5, 3e-3: None}, 1e-3),
        ({3e-4: -0.2, 1e-3: 0.0, 3e-3: 0.0}, 3e-4),  # bad, but not one answer for all
        ({3e-4: (0.53, 0.2), 1e-3: (0.55, 0.4), 3e-3: (0.3, 0.1)}, 3e-4),  # 12 rows cannot tell 0.53 from 0.55
    ],
)
def test_validation_rows_choose_the_rate(
    model: Path, tables: dict[str, Path], tmp_path: Path, scores: dict[float, Any], best: float
) -> None:
    config = settings(model, tmp_path / "run", tables, epochs=None, learning_rate=None)
    splits = load_splits(config.data)
    said: list[str] = []
    found = choose(config, splits, num_parameters=1000, train=fake(scores), notice=said.append)
    assert found.config.training.learning_rate == best
    assert found.config.training.epochs == 50  # 48 rows in batches of 8: 300 steps
    assert found.config.training.patience == 16
    assert found.search is not None and found.search["chosen"]["learning_rate"] == best
    assert [trial["epochs"] for trial in found.search["trials"]] == [16] * 3
    assert "--rate skips this" in said[0] and "'longstrand probe' is quicker" in said[1]
    assert f"learning rate {best:g}" in said[2]
    nothing = choose(found.config, splits, num_parameters=1000, train=fake({}), notice=said.append)
    assert nothing.search is None and nothing.config == found.config


def test_all_rates_diverge(model: Path, tables: dict[str, Path], tmp_path: Path) -> None:
    config = settings(model, tmp_path / "run", tables, learning_rate=None)
    never = fake(dict.fromkeys((3e-4, 1e-3, 3e-3)))
    with pytest.raises(TrainingError, match="diverged with every rate"):
        choose(config, load_splits(config.data), num_parameters=1000, train=never, notice=print)


def test_a_run_searches_once_and_says_so(model: Path, tables: dict[str, Path], tmp_path: Path) -> None:
    data = {"valid": str(tables["valid"]), "test": str(tables["test"])}
    more: dict[str, Any] = {"evaluation": {"resamples": 0, "baselines": False, "page": False}, "threads": 1}
    result = finetune(model, train=tables["train"], output=tmp_path / "run", data=data, epochs=3, device="cpu", **more)
    trials = result.report["search"]["trials"]
    assert [trial["learning_rate"] for trial in trials] == [3e-4, 1e-3, 3e-3]
    assert result.report["settings"]["training"]["learning_rate"] == result.report["search"]["chosen"]["learning_rate"]
    assert result.report["settings"]["evaluation"]["strand"] == "both"
    assert not (tmp_path / "run" / "search").exists()
    again = finetune(model, train=tables["train"], output=tmp_path / "run", data=data, epochs=3, device="cpu", **more)
    assert again.report["provenance"]["date"] == result.report["provenance"]["date"]


def test_patience_waits_while_the_loss_falls() -> None:
    """One answer for all: the metric stands still, the loss moves first."""
    rows = [{"step": step, "eval_mcc": 0.0, "eval_loss": 1 - step / 10} for step in range(6)]
    assert not is_exhausted(rows, "mcc", 2)
    stuck = [*rows, *({"step": step, "eval_mcc": 0.0, "eval_loss": 0.9} for step in (6, 7))]
    assert is_exhausted(stuck, "mcc", 2)


@pytest.mark.parametrize(
    ("batch", "most", "processes", "found"),
    [(8, 8, 2, (4, 1)), (8, 3, 1, (2, 4)), (8, None, 2, (4, 1)), (12, 4, 2, (3, 2)), (5, None, 1, (5, 1))],
)
def test_batches_are_shared_out_exactly(
    monkeypatch: pytest.MonkeyPatch, batch: int, most: int | None, processes: int, found: tuple[int, int]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    assert split_batch(batch, most) == found
    assert found[0] * found[1] * processes == batch


def test_a_batch_that_cannot_be_shared_out_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="a batch of 5 sequences cannot be shared out equally over 2 processes"):
        split_batch(5, None)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_stopped_run_exits_as_its_signal(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        finish(TrainingResult(Path("run"), None, {}, name), as_json=False, show=print)
    assert stopped.value.code == 128 + signal.Signals[name] == {"SIGINT": 130, "SIGTERM": 143}[name]
    assert "The same command goes on from there" in capsys.readouterr().out
