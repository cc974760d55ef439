"""The reading record: written with a checkpoint, read back, and compared with what is wanted."""

from __future__ import annotations

import json

import pytest

from longstrand.errors import ConfigError
from longstrand.models.reading import Reading, contradictions, read_reading


def test_it_is_read_back_as_it_was_written(tmp_path):
    reading = Reading(max_tokens=12, strand="both", class_names=("other", "TATA"))
    (tmp_path / "longstrand.json").write_text(json.dumps({"reading": reading.model_dump(mode="json")}))
    assert read_reading(tmp_path) == reading


def test_a_folder_without_a_record_has_none(tmp_path):
    assert read_reading(tmp_path) is None


def test_unknown_entries_are_refused(tmp_path):
    (tmp_path / "longstrand.json").write_text(json.dumps({"reading": {"strnd": "+"}}))
    with pytest.raises(ConfigError, match="did you mean 'strand'"):
        read_reading(tmp_path)


def test_only_what_differs_is_named():
    reading = Reading(max_tokens=12, window=None, strand="both")
    assert contradictions(reading, max_tokens=12, window=300, strand="+", exact_text=None) == [
        "strand '+' (the model was measured with 'both')"
    ]
