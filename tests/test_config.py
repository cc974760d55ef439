"""Settings: unknown keys, wrong types, overrides, round trip."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from longstrand.config import (
    StrictModel,
    build,
    differences,
    dump_config,
    from_command_line,
    merge,
    parse_override,
    read_yaml,
)
from longstrand.errors import ConfigError


class Inner(StrictModel):
    learning_rate: float = Field(1e-3, gt=0)
    layers: int = 2


class Outer(StrictModel):
    name: str
    inner: Inner = Inner()
    parts: tuple[Inner, ...] = ()


def test_a_missing_key_names_its_option() -> None:
    with pytest.raises(ConfigError, match="'name' is required; give --name, or set it in a file with --config"):
        build(Outer, {}, options={"name": "--name"})


def test_overrides_are_yaml_and_reach_nested_keys(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("name: first\ninner: {layers: 3}\n")
    config = from_command_line(Outer, file, ["inner.learning_rate=5e-4", "name=second"], {})
    assert config == Outer(name="second", inner=Inner(learning_rate=5e-4, layers=3))


def test_dump_reads_back(tmp_path: Path) -> None:
    config = Outer(name="x", parts=(Inner(layers=5),))
    (tmp_path / "c.yaml").write_text(dump_config(config))
    assert from_command_line(Outer, tmp_path / "c.yaml", [], {}) == config


@pytest.mark.parametrize(
    ("word", "value"),
    [("a=1", 1), ("a=1e-4", 1e-4), ("a=true", True), ("a=[1, 2]", [1, 2]), ("a=chr1", "chr1"), ("a=a:b", "a:b")],
)
def test_override_values(word: str, value: object) -> None:
    assert parse_override(word) == (["a"], value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "x", "innr": {}}, r"unknown key 'innr' \(did you mean 'inner'\?\); known here: name, inner, parts"),
        (
            {"name": "x", "inner": {"learnig_rate": 1}},
            r"unknown key 'inner.learnig_rate' \(did you mean 'learning_rate'\?\)",
        ),
        ({"name": "x", "parts": [{"lyers": 1}]}, r"unknown key 'parts.0.lyers' \(did you mean 'layers'\?\)"),
        ({}, "'name' is required"),
        ({"name": "x", "inner": {"layers": "forty"}}, r"'inner.layers': .*integer.* \(got 'forty'\)"),
        ({"name": "x", "inner": {"learning_rate": -1}}, "'inner.learning_rate': .*greater than 0"),
    ],
)
def test_wrong_settings_name_the_key(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(Outer, values)


def test_all_problems_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        build(Outer, {"inner": {"layers": "x"}, "unknown": 1})
    assert all(part in str(error.value) for part in ("'name' is required", "inner.layers", "unknown key 'unknown'"))


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1,\nb: 2")
    with pytest.raises(ConfigError, match=r"bad.yaml:2: not readable as YAML"):
        read_yaml(tmp_path / "bad.yaml")
    (tmp_path / "twice.yaml").write_text("a:\n  b: 1\n  c: 2\n  b: 3\n")
    with pytest.raises(ConfigError, match=r"twice.yaml:2: not readable as YAML \('b' is given twice\)"):
        read_yaml(tmp_path / "twice.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="found a list"):
        read_yaml(tmp_path / "list.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert read_yaml(tmp_path / "empty.yaml") == {}


def test_bad_overrides() -> None:
    with pytest.raises(ConfigError, match="write key=value"):
        parse_override("training.seed")
    with pytest.raises(ConfigError, match="'name' is a value, not a section"):
        merge({"name": "x"}, ["name.first=1"])


def test_differences_of_nested_settings() -> None:
    before, after = {"a": {"b": 1, "c": 2}, "d": 1, "f": 1}, {"a": {"b": 1, "c": 3}, "e": None, "f": 2}
    assert differences(before, after, leave_out=["f"]) == ["a.c: 2 -> 3", "d: 1 -> None"]


def test_what_is_at_its_default_was_not_given() -> None:
    class Made(Outer):
        inner: Inner = Field(default_factory=Inner)

    Made(name="x").refuse_given(["inner", "parts"], "why")
    with pytest.raises(ValueError, match="inner would not be used: why; leave it out"):
        Made(name="x", inner=Inner(layers=3)).refuse_given(["parts", "inner"], "why")
