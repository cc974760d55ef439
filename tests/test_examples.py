"""The notebooks of examples/ run and have a picture; pages that are made from code are fresh."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.api_page import PAGE, page
from tools.docs_site import ROOT, cells_of, page_of

NOTEBOOKS = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.docs
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_has_a_picture(notebook: Path) -> None:
    cells = cells_of(notebook)
    assert cells[0].markdown and cells[0].text.startswith("# ")
    assert any("import longstrand as ls" in cell.text for cell in cells)
    assert sum(len(cell.text.splitlines()) for cell in cells) <= 100  # a screen or two
    assert "data:image/png;base64" in page_of(notebook)


def test_outputs_are_shown(tmp_path: Path) -> None:
    notebook = tmp_path / "toy.py"
    notebook.write_text('# %% [markdown]\n# # Title\n#\n# Words.\n\n# %%\na = 2\nprint("seen")\na + 1\n\n# %%\na = 4\n')
    assert [cell.markdown for cell in cells_of(notebook)] == [True, False, False]
    shown = page_of(notebook)
    assert shown.startswith("# Title\n\nWords.\n\n```python\na = 2")
    assert "```text\nseen\n```\n\n```text\n3\n```\n\n```python\na = 4\n```\n" in shown


def test_a_failing_cell_is_named(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text("# %%\n1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        page_of(tmp_path / "toy.py")


def test_the_api_page_is_fresh() -> None:
    assert PAGE.read_text() == page(), "run: python tools/api_page.py"
