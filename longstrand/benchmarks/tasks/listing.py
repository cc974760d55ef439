"""Tasks as text: the table of ``longstrand benchmark list`` and the full facts of one task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from longstrand.benchmarks.tasks.task import Task


def task_facts(task: Task) -> dict[str, Any]:
    """Give the facts of a task as plain values."""
    return {
        "id": task.id,
        "title": task.title,
        "kind": task.kind,
        "problem": task.problem,
        "metric": task.metric,
        "loss": task.loss,
        "window": task.window,
        "num_rows": list(task.num_rows) if task.num_rows else None,
        "split_rule": task.split_rule,
        "files": [asdict(item) for item in task.files],
        "options": {name: {"default": item.default, "help": item.help} for name, item in task.options.items()},
        "published": {model: asdict(item) for model, item in task.published.items()},
        "notes": list(task.notes),
        "needs": task.needs,
    }


def table_lines(tasks: Sequence[Task]) -> list[str]:
    """Write a table with one line a task."""
    rows = [("id", "train / valid / test", "bases", "kind", "metric", "needs")]
    for task in tasks:
        counts = "-" if task.num_rows is None else " / ".join("-" if n is None else f"{n:,}" for n in task.num_rows)
        window = "-" if task.window is None else f"{task.window:,}"
        rows.append((task.id, counts, window, f"{task.kind}, {task.problem}", task.metric, task.needs))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    lines = ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[-1]]).rstrip() for row in rows]
    return [*lines, "", "'longstrand benchmark list ID' shows one task in full."]


def full_text(task: Task) -> str:
    """Write everything about one task."""
    lines = [f"{task.id}: {task.title}", f"kind: {task.kind}, {task.problem}; metric {task.metric}, loss {task.loss}"]
    if task.num_rows:
        lines.append("rows: " + " / ".join("-" if n is None else f"{n:,}" for n in task.num_rows))
    lines += [f"split: {task.split_rule}", "files:"]
    for item in task.files:
        checked = ", checksum known" if item.sha256 else ""
        lines.append(f"  {item.name}  ({item.published}{checked})")
    lines += [f"option {name}={_show(item.default)}: {item.help}" for name, item in task.options.items()]
    sources: dict[tuple[str, str, str], list[str]] = {}
    for model, fact in task.published.items():
        sources.setdefault((fact.metric, fact.source, fact.protocol), []).append(f"{model} {fact.value:g}")
    for (metric, source, protocol), numbers in sources.items():
        lines.append(f"published {metric}, {source}{'; ' + protocol if protocol else ''}:")
        lines += [f"  {number}" for number in numbers]
    return "\n".join([*lines, *(f"note: {note}" for note in task.notes)])


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
