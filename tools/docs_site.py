"""Hook of mkdocs: notebooks become pages with their outputs, files outside docs/ that pages link to become pages too.

A notebook is a Python file in ``examples/`` with cells that begin with ``# %%`` (code) or ``# %% [markdown]``. It is
executed in a copy of its folder. The value of the last line of a cell is shown: figures as pictures, tables as tables.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = {
    "CHANGELOG.md": "changes.md",
    "recipes/README.md": "recipes.md",
    "recipes/gpu/README.md": "recipes_gpu.md",
    "longstrand/checkpoints/mixed_6mer_1m/README.md": "shipped_checkpoint.md",
}
LINK = re.compile(r"\[([^\[\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")


@dataclass(frozen=True)
class Cell:
    """One cell: ``markdown``, or code with what it printed and the value of its last line (None: nothing)."""

    markdown: bool
    text: str
    printed: str = ""
    value: Any = None


def cells_of(notebook: Path) -> list[Cell]:
    """Read the cells of a notebook in text form (py:percent)."""
    cells = []
    for part in re.split(r"^# %%", notebook.read_text(), flags=re.MULTILINE)[1:]:
        kind, _, text = part.partition("\n")
        markdown = "[markdown]" in kind
        text = re.sub(r"^# ?", "", text, flags=re.MULTILINE) if markdown else text
        cells.append(Cell(markdown, text.strip()))
    return cells


def run_notebook(notebook: Path) -> Iterator[Cell]:
    """Execute a notebook in a copy of its folder and give its cells with their outputs."""
    names: dict[str, Any] = {"__name__": "__main__"}
    notebook = notebook.resolve()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(shutil.copytree(notebook.parent, f"{folder}/run")):
        for number, cell in enumerate(cells_of(notebook), 1):
            if cell.markdown:
                yield cell
                continue
            tree = ast.parse(cell.text, f"{notebook.name}, cell {number}")
            last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(tree, f"{notebook.name}, cell {number}", "exec"), names)
                value = None
                if last is not None:
                    value = eval(compile(ast.Expression(last.value), f"{notebook.name}, cell {number}", "eval"), names)
            yield Cell(False, cell.text, printed.getvalue(), value)


def page_of(notebook: Path) -> str:
    """Execute a notebook and write it as Markdown with its outputs."""
    parts = []
    for cell in run_notebook(notebook):
        if cell.markdown:
            parts.append(cell.text)
            continue
        parts.append(f"```python\n{cell.text}\n```")
        if cell.printed.strip():
            parts.append(f"```text\n{cell.printed.rstrip()}\n```")
        if hasattr(cell.value, "savefig"):
            cell.value.savefig(target := io.BytesIO(), format="png", dpi=120)
            parts.append(f"![picture](data:image/png;base64,{base64.b64encode(target.getvalue()).decode()})")
        elif hasattr(cell.value, "_repr_html_"):
            parts.append(f'<div class="output">{cell.value._repr_html_()}</div>')
        elif cell.value is not None:
            parts.append(f"```text\n{cell.value!r}\n```")
    return "\n\n".join(parts) + f"\n\n*This page is `examples/{notebook.name}`, executed.*\n"


def on_files(files: Any, config: Mapping[str, Any]) -> Any:
    """Add the generated pages (called by mkdocs)."""
    from mkdocs.structure.files import File

    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("MPLBACKEND", "Agg")
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=_redirect((ROOT / source).read_text(), ROOT / source)))
    for notebook in sorted((ROOT / "examples").glob("*.py")):
        files.append(File.generated(config, f"examples/{notebook.stem}.md", content=page_of(notebook)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links that leave docs/ at the generated pages (called by mkdocs)."""
    source = page.file.abs_src_path
    return _redirect(markdown, Path(source)) if source else markdown


def _redirect(markdown: str, source: Path) -> str:
    """Rewrite relative links to files outside docs/; those to files that are no pages become plain text."""

    def change(match: re.Match[str]) -> str:
        target = (source.parent / match.group(2)).resolve()
        home = source.parent if source.is_relative_to(ROOT / "docs") else ROOT / "docs"
        if target.is_relative_to(ROOT / "docs") and target.is_file():
            page = target
        elif target.is_relative_to(ROOT) and str(target.relative_to(ROOT)) in OUTSIDE:
            page = ROOT / "docs" / OUTSIDE[str(target.relative_to(ROOT))]
        elif target.exists():
            return f"{match.group(1)} (`{target.relative_to(ROOT)}`)"
        else:
            return match.group()
        return f"[{match.group(1)}]({os.path.relpath(page, home)}{match.group(3) or ''})"

    return LINK.sub(change, markdown)
