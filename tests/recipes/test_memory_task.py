"""The recipe of the memory task: rows are what it says; memory solves it far beyond training (slow)."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "memory_task.py"


@pytest.fixture(scope="module")
def recipe():
    specification = importlib.util.spec_from_file_location("memory_task", RECIPE)
    module = importlib.util.module_from_spec(specification)
    sys.modules["memory_task"] = module
    specification.loader.exec_module(module)
    yield module
    del sys.modules["memory_task"]


def test_the_first_segment_alone_holds_the_marker(recipe):
    ids, labels = recipe.make_batch(np.random.default_rng(0), recipe.BASE, 5, 40)
    room = recipe.BASE.room
    assert ids.shape == (40, 5 * room + 2)
    content = ids[:, 1:-1]
    for marker, label in zip(recipe.MARKERS, (0, 1)):
        places = content == marker
        assert places[:, room:].sum() == 0
        assert torch.equal(places[:, :room].sum(1), (labels == label).long())
    model = recipe.make_model(recipe.BASE)
    assert model.encoder(ids).num_segments.tolist() == [5] * 40


@pytest.mark.slow
def test_every_trial_can_be_made(recipe):
    for trial in (recipe.BASE, *recipe.ABLATIONS):
        short = replace(trial, stages=tuple((segments, 1) for segments, _ in trial.stages), batch_size=2)
        assert set(recipe.measure(recipe.train(short, 0), short, rows=2)) == set(recipe.LENGTHS)


@pytest.mark.slow
def test_memory_carries_the_marker_far_beyond_training(recipe):
    torch.set_num_threads(1)
    found = recipe.measure(recipe.train(recipe.BASE, 0), recipe.BASE)
    assert min(found.values()) > 0.95
    truncated = replace(recipe.BASE, num_tokens=0)
    blind = recipe.measure(recipe.train(truncated, 0), truncated)
    assert blind[1] > 0.95 and max(blind[number] for number in recipe.LENGTHS[1:]) < 0.65
