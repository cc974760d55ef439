"""Probing: of labels per base, the sample, the cache against plain predictions, folds, the choice, a run, the CLI."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from longstrand.benchmarks.probing import states as module
from longstrand.benchmarks.probing.probe import Choice, Probe, ProbeSettings, Search, choose_probe, make_folds
from longstrand.benchmarks.probing.states import Sample, States, cache_states, parse_layers, sample_bases
from longstrand.benchmarks.protocol import BenchmarkConfig
from longstrand.benchmarks.run import run_benchmark
from longstrand.config import build
from longstrand.data.labelled import LabelledTable, label
from longstrand.data.labelled_files import RawTable, make_rows
from longstrand.data.targets import Task, infer_task
from longstrand.errors import ConfigError, InputError, UsageError
from longstrand.evaluation.metrics import Scores, evaluate
from longstrand.inference.options import PredictOptions
from longstrand.inference.predict import predict
from longstrand.models.checkpoint import load_model
from longstrand.tokenization.hub import load_tokenizer
from tests.benchmarks.test_run import classes, motif_rows
from tests.benchmarks.toys import dna
from tests.toys import tiny_checkpoint

SAMPLING = {"max_bases": 60, "seed": 0, "dtype": "float32"}


def marked(text: str) -> str:
    """Label every base by its 2-mer token: x if that is CG or GC, else o; an odd last base has no label."""
    pairs = ["xx" if text[at : at + 2] in ("CG", "GC") else "oo" for at in range(0, len(text) - 1, 2)]
    return "".join(pairs) + "?" * (len(text) % 2)


def tables_of(sizes: dict[str, tuple[int, int]]) -> dict[str, LabelledTable]:
    """Make splits of {name: (rows, bases)}."""
    raw = {}
    for seed, (name, (count, num_bases)) in enumerate(sizes.items()):
        texts = dna(count, num_bases, seed)
        raw[name] = make_rows(texts, {"label": [marked(text) for text in texts]}, source=name)
    first = raw["train"]
    task = infer_task(first)
    return {name: label(table, task) for name, table in raw.items()}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny", hidden_size=16)


@pytest.fixture(scope="module")
def tables() -> dict[str, LabelledTable]:
    return tables_of({"train": (12, 41), "valid": (6, 30), "test": (5, 33)})


def cached(model_folder: Path, tables: dict[str, LabelledTable], folder: Path, **changes: Any) -> States:
    options = PredictOptions(output="embeddings", **changes.pop("settings", {}))
    return cache_states(
        changes.pop("model", None) or load_model(model_folder, "encoder"),
        tables,
        folder,
        tokenizer=load_tokenizer(model_folder),
        options=options,
        identity={"model": "toy"},
        sampling=SAMPLING | changes.pop("sampling", {}),
        **changes,
    )


def test_rare_classes_are_kept_and_weighted_back() -> None:
    raw = make_rows(["A" * 8, "C" * 12], {"label": ["aaabbbb?", "c" * 11 + "b"]}, source="toy")
    table = label(raw, infer_task(raw))
    # 3 a, 5 b and 11 c; 12 places: a third is 4, a has 3; half of the other 9 is 4 of b; 5 are left for c.
    sample = sample_bases(table, 12, 0, "toy")
    targets = np.concatenate(table.targets)[sample.places]
    assert np.bincount(targets).tolist() == [3, 4, 5] and (np.diff(sample.places) > 0).all()
    assert {int(kind): float(sample.weights[targets == kind].sum()) for kind in (0, 1, 2)} == {0: 3, 1: 5, 2: 11}
    assert sample_bases(table, 19, 0, "toy").weights.tolist() == [1.0] * 19
    assert not np.array_equal(sample.places, sample_bases(table, 12, 1, "toy").places)


@pytest.mark.parametrize("strand", ["+", "both"])
def test_the_cache_holds_what_predict_gives_from_one_pass(
    strand: str, model_folder: Path, tables: dict[str, LabelledTable], tmp_path: Path
) -> None:
    model, tokenizer = load_model(model_folder, "encoder"), load_tokenizer(model_folder)
    said: list[str] = []
    rows: list[int] = []
    hook = model.register_forward_hook(lambda *_: rows.append(1))
    cache = cached(model_folder, tables, tmp_path / "c", model=model, settings={"strand": strand}, notice=said.append)
    hook.remove()
    assert len(rows) == 3 and cache.seconds > 0  # one batch a split
    assert said == [
        "probing uses 60 of 480 labelled bases of train and 60 of 180 labelled bases of valid, chosen by seed, rare "
        "classes first, weighted back to their share"
    ]
    assert cache.layers == (0, 1) and len(cache.samples["train"]) == 60
    for layer in (0, 1):
        alone = PredictOptions(output="embeddings", pooling="bases", layer=layer, strand=strand)  # type: ignore[arg-type]
        for name, table in tables.items():
            wanted = np.concatenate(
                [row.values for row in predict(model, table.sequences, tokenizer=tokenizer, options=alone)]
            )
            if name in cache.samples:
                found = cache.read(name, layer, "bases")
                assert np.allclose(found, wanted[cache.samples[name].places], atol=1e-5) and found.shape == (60, 16)
            if name != "train":
                every = cache.apply(name, layer, "bases", lambda part: part[:, :3], 3)
                assert np.allclose(every, wanted[:, :3], atol=1e-5, equal_nan=True)
    tokens = 5 * 17 if strand == "+" else 5 * 33
    assert (cache.folder / "test" / "states").stat().st_size <= tokens * 2 * 16 * 4
    again = cached(model_folder, tables, tmp_path / "c", settings={"strand": strand})
    assert again.seconds == 0


def test_an_interrupted_cache_goes_on(
    model_folder: Path, tables: dict[str, LabelledTable], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = cached(model_folder, tables, tmp_path / "whole")
    monkeypatch.setattr(module, "PART_ROWS", {True: 4, False: 4})
    real, parts_made = module._Writer._arrays, list[int]()

    def stop(self: Any, values: Any, first_base: int) -> Any:
        if len(parts_made) == 2:
            raise KeyboardInterrupt
        parts_made.append(first_base)
        return real(self, values, first_base)

    monkeypatch.setattr(module._Writer, "_arrays", stop)
    with pytest.raises(KeyboardInterrupt):
        cached(model_folder, tables, tmp_path / "parts")
    assert parts_made == [0, 4 * 41] and len(list((tmp_path / "parts" / "train.parts").glob("*.npz"))) == 2
    monkeypatch.setattr(module._Writer, "_arrays", real)
    parts = cached(model_folder, tables, tmp_path / "parts")
    for name in ("train", "valid", "test"):
        assert np.array_equal(parts.runs(name), whole.runs(name))
        sizes = [np.fromfile(cache.folder / name / "states", np.float32) for cache in (whole, parts)]
        assert np.allclose(*sizes, atol=1e-5)
    said: list[str] = []
    other = cached(model_folder, tables, tmp_path / "parts", sampling={"seed": 1}, notice=said.append)
    assert "another sample; they are computed anew" in said[0] and other.seconds > 0


def test_states_that_float16_does_not_hold(
    model_folder: Path, tables: dict[str, LabelledTable], tmp_path: Path
) -> None:
    model = load_model(model_folder, "encoder")
    model.final_norm.weight.data.mul_(1e9)
    few = {"sampling": {"dtype": "float16"}, "settings": {"layers": (1,)}}
    with pytest.raises(InputError, match=r"states beyond what float16 holds; keep them with probe.states=float32"):
        cached(model_folder, tables, tmp_path / "c", model=model, **few)


def test_the_bases_of_a_sequence_are_in_one_fold(tables: dict[str, LabelledTable]) -> None:
    samples = {name: sample_bases(tables[name], 100, 0, "toy") for name in ("train", "valid")}
    cache = States(Path(), (0,), ("bases",), 1, "float32", samples)
    train, valid = tables["train"], tables["valid"]
    rows = np.concatenate([samples["train"].places // 41, 12 + samples["valid"].places // 30])
    for pieces in (False, True):
        together = {0: 1, 2: 3} if pieces else {}
        raw = replace(train.raw, rows=[together.get(row, row) for row in range(12)], is_cut=pieces)
        cut = {"train": replace(train, raw=raw), "valid": valid}
        folds = make_folds(cache, cut, ProbeSettings(folds=3))
        assert sorted(np.concatenate([held for _, held in folds]).tolist()) == list(range(200))
        for fold in folds:
            held = {together.get(row, row) for row in rows[fold[1]].tolist()}
            assert not held & {together.get(row, row) for row in rows[fold[0]].tolist()}
    ((fit, held_out),) = make_folds(cache, tables, ProbeSettings(folds=0, max_rows=50))
    assert len(fit) == 50 == len(held_out) and fit.max() < 100 <= held_out.min()
    with pytest.raises(UsageError, match="18 different sequences are too few for 10 folds"):
        make_folds(cache, tables, ProbeSettings(folds=10))


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_probe_reads_the_token_off_the_states(kind: str, model_folder: Path, tmp_path: Path) -> None:
    tables = tables_of({"train": (30, 40), "valid": (12, 40), "test": (6, 41)})
    cache = cached(model_folder, tables, tmp_path / "c", sampling={"max_bases": 600}, settings={"max_tokens": 18})
    settings = build(ProbeSettings, {"folds": 2, "trials": 0 if kind == "linear" else 2, "probes": [kind]})
    found = choose_probe(cache, tables, settings)
    assert [(tried.choice.layer, tried.choice.pooling) for tried in found.curve] == [(0, "bases"), (1, "bases")]
    assert found.metric == "f1_macro" and len(found.trials) == settings.trials and found.chosen.mean > 0.9
    said = found.predict(cache, "test").reshape(6, 41, 2)
    # 18 tokens are [CLS], 16 two-mers and [SEP]: 32 bases.
    assert np.isnan(said[:, 32:]).all() and not np.isnan(said[:, :32]).any()
    targets = np.stack(tables["test"].targets)[:, :32]
    assert (said[:, :32].argmax(axis=2) == targets).mean() > 0.95


def test_scores_see_the_classes_at_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = tables_of({"train": (8, 40), "valid": (4, 40)})
    samples = {name: Sample(np.arange(4), np.array([1.0, 1.0, 9.0, 9.0])) for name in tables}
    search = Search(States(Path(), (0,), ("bases",), 1, "float32", samples), tables, ProbeSettings(folds=0))
    search.targets = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    said = np.array([[1, 0], [0, 1], [0, 1], [0, 1]])
    # True 0: one right, one called 1; true 1: 18 right. F1 of 0: 2 / (2 + 1) = 2/3; of 1: 36 / (36 + 1) = 36/37.
    assert search.measure(said, np.arange(4)) == pytest.approx((2 / 3 + 36 / 37) / 2)


def write_data(folder: Path) -> Path:
    folder.mkdir()
    texts = dna(60, 24)
    lines = ["sequence,label", *(f"{text},{marked(text)}" for text in texts)]
    (folder / "bases.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_probes_stand_in_the_table_of_a_run(model_folder: Path, tmp_path: Path) -> None:
    protocol = {"resamples": 20, "probe": {"folds": 2, "trials": 0, "max_bases": 300}}
    values = {
        "data": write_data(tmp_path / "data"),
        "models": [model_folder],
        "methods": ["probe"],
        "protocol": protocol,
    }
    values |= {"baselines": ["majority"], "output": tmp_path / "run", "seeds": (0, 1), "device": "cpu"}
    values |= {"protocol": protocol | {"epochs": 1}}
    found = run_benchmark(build(BenchmarkConfig, values))
    assert found.complete and not found.failed
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    rows = {row["method"]: row for row in results["summary"]}
    assert rows["tiny: probe"]["mean"] > 0.9 and rows["tiny: probe"]["metric"] == "f1_macro"
    assert "tiny: probe of random init" in rows and len(results["results"][1]["details"]["probe"]["curve"]) == 2
    seconds = [each["details"]["embedding_seconds"] for each in results["results"] if each["method"] == "tiny: probe"]
    assert seconds[0] > 0 and seconds[1] == 0  # the second seed reads what the first one kept


def test_the_command_probes_labels_per_base(model_folder: Path, tmp_path: Path) -> None:
    from longstrand.cli.probe import app

    words = ["--model", str(model_folder), "--train", str(write_data(tmp_path / "data") / "bases.csv")]
    words += ["--output", str(tmp_path / "run"), "--trials", "0", "probe.folds=2", "probe.max_bases=300"]
    result = CliRunner().invoke(app, [*words, "resamples=20"])
    assert result.exit_code == 0, result.output
    assert "each base, linear probe (f1_macro 0.9" in result.output or "(f1_macro 1.000" in result.output
    results = json.loads((tmp_path / "run" / "results.json").read_text())["results"]
    assert next(each for each in results if each["kind"] == "probe")["test"]["metrics"]["f1_macro"]["value"] > 0.9


def test_test_rows_without_a_metric_are_refused_before_anything_is_computed(model_folder: Path, tmp_path: Path) -> None:
    from longstrand.benchmarks.probe_run import ProbeConfig, run_probe

    texts = dna(40, 12)
    for name, value in (("train", "{}.5"), ("test", "7")):
        lines = [f"{text},{value.format(n)}" for n, text in enumerate(texts)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["sequence,label", *lines]) + "\n")
    data = {name: tmp_path / f"{name}.csv" for name in ("train", "test")}
    values = {"output": tmp_path / "run", "model": model_folder, "data": data, "probe": {"layers": 1}}
    with pytest.raises(
        InputError, match=r"test.csv: in the test split .* all values of 'label' are the same, so pearson is"
    ):
        run_probe(build(ProbeConfig, values))
    assert not (tmp_path / "run" / "trials").exists()


def embedded(model_folder: Path, folder: Path, **changes: Any) -> tuple[Any, dict[str, LabelledTable]]:
    rows = {
        name: motif_rows(size, seed) for seed, (name, size) in enumerate({"train": 60, "valid": 24, "test": 30}.items())
    }
    task = Task("single_label", ("0", "1"), ("l",))
    tables = {
        name: LabelledTable(RawTable(name, list(range(len(part))), [text for text, _ in part], {}), task,
                            np.array([label for _, label in part]))
        for name, part in rows.items()
    }  # fmt: skip
    model = load_model(model_folder, "encoder")
    passes: list[int] = []
    model.register_forward_hook(lambda *_: passes.append(1))
    options = PredictOptions(output="embeddings", batch_tokens=100_000, **changes)
    tokenizer = load_tokenizer(model_folder)
    cache = cache_states(
        model, tables, folder, tokenizer=tokenizer, options=options, identity={"model": "m"}, sampling={}
    )
    return (cache, passes), tables


def test_embeddings_are_made_once(model_folder: Path, tmp_path: Path) -> None:
    (cache, passes), _ = embedded(model_folder, tmp_path / "e")
    assert len(passes) == 3  # one batch a split, for all layers and poolings
    assert cache.layers == (0, 1) and cache.poolings == ("cls", "mean", "max")
    assert cache.read("test", 1, "max").shape == (30, 16)
    (again, passes), _ = embedded(model_folder, tmp_path / "e")
    assert passes == [] and again.seconds == 0
    (_, passes), _ = embedded(model_folder, tmp_path / "e", strand="both")
    assert len(passes) == 3


def test_probing_chooses_without_the_test_rows(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache, _), tables = embedded(model_folder, tmp_path / "e")
    settings = ProbeSettings(folds=3, trials=3)
    found = choose_probe(cache, {name: tables[name] for name in ("train", "valid")}, settings)
    assert len(found.curve) == 6 and len(found.trials) == 3
    assert all(len(tried.scores) == 3 for tried in found.curve)
    assert found.chosen.mean == max(tried.mean for tried in (*found.curve, *found.trials))
    assert found.to_dict()["parameters"] > 16
    plain = choose_probe(cache, tables, ProbeSettings(folds=0, trials=0))
    assert all(len(tried.scores) == 1 and tried.spread == 0 for tried in plain.curve)
    said = plain.predict(cache, "test")
    assert said.shape == (30, 2) and np.allclose(said.sum(axis=1), 1, atol=1e-5)
    import sys

    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError, match=r"pip install 'longstrand\[hpo\]'"):
        choose_probe(cache, tables, settings)


def test_folds_keep_identical_sequences_together() -> None:
    train, valid = classes(60, 2), classes(20, 2, seed=1)
    train.raw.sequences[5] = valid.raw.sequences[3] = train.raw.sequences[0]
    states = States(Path(), (0,), ("mean",), 1)
    folds = make_folds(states, {"train": train, "valid": valid}, ProbeSettings(folds=4))
    assert sorted(np.concatenate([held for _, held in folds]).tolist()) == list(range(80))
    for fold in folds:
        assert not set(fold[0]) & set(fold[1])
        assert len({0, 5, 63} & set(fold[1].tolist())) in (0, 3)
    with pytest.raises(UsageError, match="too few for 50 folds"):
        make_folds(states, {"train": train, "valid": valid}, ProbeSettings(folds=50))
    with pytest.raises(ConfigError, match="one fold leaves nothing"):
        build(ProbeSettings, {"folds": 1})


@pytest.mark.parametrize("problem", ["single_label", "multi_label", "regression"])
@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_probes_of_every_problem(kind: str, problem: str) -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(400, 12)).astype(np.float32) * 3 + 1
    if problem == "single_label":
        targets: Any = (vectors[:, 0] > 1).astype(np.int64) + (vectors[:, 0] > 3)
        task = Task("single_label", ("a", "b", "c"), ("l",))
    else:
        targets = np.stack([vectors[:, 0] * 2 + 9, vectors[:, 1]], axis=1)
        targets = targets if problem == "regression" else (targets > targets.mean(axis=0)).astype(np.float32)
        targets[::9, 1] = np.nan
        task = Task(problem, ("a", "b"), ("a", "b"))  # type: ignore[arg-type]
    fitted = Probe(task, Choice(0, "mean", kind, 1.0, 16 if kind == "mlp" else 0)).fit(vectors[:300], targets[:300])
    found = evaluate(Scores(task, targets[300:], fitted.predict(vectors[300:])), num_resamples=0, curves=False)
    name = {"single_label": "accuracy", "multi_label": "mean_roc_auc", "regression": "pearson"}[problem]
    assert found["metrics"][name]["value"] > 0.75 and fitted.num_parameters > 12


def test_layers_are_read_from_words() -> None:
    assert parse_layers(["all"], 2) == (0, 1, 2)
    assert parse_layers(["-1", "2", "0"], 2) == (2, 0)
    with pytest.raises(UsageError, match="layers are 'all' or numbers"):
        parse_layers(["last"], 2)
    with pytest.raises(UsageError, match="no layer 3"):
        parse_layers(["3"], 2)
