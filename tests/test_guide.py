"""The pages of the guide are executed, in the order in which they are read; every command is in one of them."""

from __future__ import annotations

import pytest

from longstrand.cli.main import VERBS
from longstrand.demo.materials import gather
from longstrand.demo.run import run_pretraining
from longstrand.demo.settings import DemoConfig
from tests.documents import GUIDE, ROOT, blocks_of, commands_of, run_blocks


@pytest.mark.docs
@pytest.mark.usefixtures("folder_of_blocks")
def test_every_block_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """The pages read the tables and the pre-trained model of the demo; the whole demo runs in the README."""
    demo = DemoConfig(quick=True)
    run_pretraining(demo, gather(demo, print), print)
    run_blocks(GUIDE, capsys)


def test_every_verb_is_in_the_guide() -> None:
    assert set(GUIDE) == {str(path.relative_to(ROOT)) for path in (ROOT / "docs" / "guide").glob("*.md")}
    shown = {words[1] for page in GUIDE for block in blocks_of(page) if block.language == "bash"
             for words in commands_of(block) if words[0] == "longstrand" and len(words) > 1}  # fmt: skip
    assert set(VERBS) <= shown
