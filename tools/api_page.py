"""Write ``docs/API.md`` from the docstrings of the public functions: ``python tools/api_page.py``."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import longstrand

PAGE = Path(__file__).resolve().parents[1] / "docs" / "API.md"
GROUPS: dict[str, str] = tomllib.loads(Path(__file__).with_name("api_groups.toml").read_text(encoding="utf-8"))
SECTION = re.compile(r"^(Args|Returns|Yields|Raises|Attributes|Example|Examples):$")
HEAD = """# API

Everything a notebook needs is one import away: `import longstrand as ls`. A model is a folder, a run folder, the name
of a shipped checkpoint, or a loaded model. Where an error names an option of the command line (`--window 2000`),
give the argument of the same name (`window=2000`). This page is made from the docstrings.
"""


def page() -> str:
    """Return the page; public names without a group come last."""
    names = [name for name in longstrand.__all__ if not name.startswith("__")]
    placed = {name for group in GROUPS.values() for name in group.split()}
    groups = {title: [name for name in group.split() if name in names] for title, group in GROUPS.items()}
    groups["More"] = [name for name in names if name not in placed]
    parts = [HEAD]
    for title, members in groups.items():
        if members:
            parts += [f"## {title}\n", *(_entry(name, getattr(longstrand, name)) for name in members)]
    return "\n".join(parts)


def _entry(name: str, thing: Any) -> str:
    signature = re.sub(
        r"<factory>|<bound method .*?>>|<(?:function|object)[^=]*? at 0x\w+>", "...", str(inspect.signature(thing))
    )
    signature = re.sub(r"(?:longstrand|collections|pathlib|typing)(?:\.\w+)*\.(\w+)", r"\1", signature)
    signature = re.sub(r"(: |-> )'([^']*)'", r"\1\2", signature)
    call = f"ls.{name}{signature}"
    if len(call) > 100:
        inside, back = signature[1:].rsplit(")", 1)
        arguments = re.split(r", (?=[\w*]+(?::|,|$)|\*)", inside)
        call = f"ls.{name}(\n" + "".join(f"    {argument},\n" for argument in arguments) + f"){back}"
    return f"### {name}\n\n```python\n{call}\n```\n\n{_markdown(inspect.getdoc(thing) or '')}\n"


def _markdown(docstring: str) -> str:
    """Turn a Google-style docstring into Markdown: sections become bold, their entries a list."""
    lines: list[str] = []
    section = ""
    for line in docstring.splitlines():
        if found := SECTION.match(line):
            section = found.group(1)
            lines += [f"**{section}**", ""]
        elif section in ("Args", "Attributes", "Raises") and (item := re.match(r"    (\*{0,2}\w[\w, *]*): (.*)", line)):
            lines.append(f"- `{item.group(1)}`: {item.group(2)}")
        elif section.startswith("Example"):
            lines.append(line)
        else:
            lines.append(("  " if section in ("Args", "Attributes", "Raises") and line else "") + line.strip())
    return re.sub(r"``([^`]+)``", r"`\1`", "\n".join(lines))


if __name__ == "__main__":
    PAGE.write_text(page())
