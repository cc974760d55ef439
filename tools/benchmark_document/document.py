"""A Markdown document whose numbers are made from tables of results.

Blocks stand on lines of their own, numbers within a line::

    <!-- table stage1 method="k-mer regression as 6-mer regression; mixed_6mer_1m: full" -->
    (whatever stands here is replaced)
    <!-- end -->

    Pre-training is worth <!--= difference stage1 ours="a: full" against="a: random init" show=mean -->+0.1<!--/-->.

    <!-- names task="own/* as *" method="mixed_6mer_1m: full as fine-tuned" -->

The first word is a view (`views.VIEWS`), the second an experiment: ``stage1`` is ``stage1.csv`` in the folder of
results. A line with ``names`` gives the values of a column other words, in the whole document. Text in fenced code and
in backticks is left alone; anything else stays as it is, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longstrand.errors import InputError, LongstrandError, UsageError, nearest, one_of
from longstrand.report.plots import draw_curves, to_svg
from longstrand.report.sections import Line
from longstrand.runtime import write_atomically
from tools.benchmark_document.views import VIEWS, Results, curves, read_results, rename, words

BLOCK = re.compile(r"[ \t]*<!--(?!=)\s*(.*?)\s*-->[ \t]*\r?\n?")
INLINE = re.compile(r"<!--=\s*(?P<body>.*?)\s*-->(?P<text>.*?)(?P<end><!--/-->|<!--=|$)", re.DOTALL)
OPTION = re.compile(r'\s*(\w+)=("[^"]*"|[^\s"]+)(?=\s|$)')
DIGEST = re.compile(r"<!-- longstrand (\w+) -->")


@dataclass(frozen=True)
class Marker:
    """A place in the document.

    Attributes:
        line: number of the line of its beginning, from 1.
        body: as written: VIEW EXPERIMENT key=value ...
        inline: whether it stands within a line.
        start: first character of the generated text.
        end: character after it.
    """

    line: int
    body: str
    inline: bool
    start: int
    end: int

    @property
    def view(self) -> str:
        """Return the first word."""
        return self.body.split(" ")[0]

    @property
    def experiment(self) -> str:
        """Return the second word.

        Raises:
            InputError: there is none.
        """
        parts = self.body.split()
        if len(parts) < 2 or "=" in parts[1]:
            raise InputError(f"'{self.body}' names no experiment; write VIEW EXPERIMENT key=value ...")
        return parts[1]

    def options(self) -> dict[str, str]:
        """Read ``key=value`` and ``key="several words"``.

        Raises:
            InputError: something else stands there, or a key twice.
        """
        rest = self.body.split(None, 1 if self.view == "names" else 2)[1 if self.view == "names" else 2 :]
        text, place, found = rest[0] if rest else "", 0, dict[str, str]()
        while text[place:].strip():
            option = OPTION.match(text, place)
            if option is None:
                raise InputError(f"'{text[place:].strip()}' is not key=value or key=\"several words\".")
            if option[1] in found:
                raise InputError(f"'{option[1]}' is given twice.")
            found[option[1]], place = option[2].strip('"'), option.end()
        return found


def find_markers(text: str, name: str = "document") -> list[Marker]:
    """Find all markers of a document, in order.

    Raises:
        InputError: one is not closed, closed twice, or of an unknown view; with the line.
    """
    found: list[Marker] = []
    opened: tuple[int, str, int] | None = None
    fence, place, last = "", 0, ""
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        start, place = place, place + len(line)
        mark = re.match(r"[ \t]*(`{3,}|~{3,})", line)
        if mark and opened is None and (not fence or line.strip().startswith(fence)):
            fence = "" if fence else mark[1]
        elif not fence and (block := BLOCK.fullmatch(line)):
            body, first = block[1], block[1].split(" ")[0]
            if body == "end" and opened is None:
                guess = nearest(last, VIEWS)
                raise InputError(f"{name}:{number}: '<!-- end -->' without a block before it{guess}.")
            if body == "end":
                assert opened is not None
                found.append(Marker(opened[0], opened[1], False, opened[2], start))
                opened = None
            elif first in VIEWS and opened is not None:
                raise InputError(f"{name}:{number}: the block of line {opened[0]} is not closed by '<!-- end -->'.")
            elif first in VIEWS:
                if not VIEWS[first].block:
                    raise InputError(f"{name}:{number}: '{first}' stands within a line: <!--= {body} -->text<!--/-->.")
                opened = (number, body, place)
            elif first == "names":
                found.append(Marker(number, body, False, place, place))
            last = first
        elif not fence and opened is None:
            found += _inline(line, start, number, name)
    if opened is not None:
        raise InputError(f"{name}:{opened[0]}: the block '{opened[1]}' is not closed by '<!-- end -->'.")
    return found


def _inline(line: str, start: int, number: int, name: str) -> list[Marker]:
    """Find the markers within a line; those in backticks are text."""
    visible = re.sub(r"`[^`]*`", lambda code: "`" * len(code[0]), line)
    found = []
    for mark in INLINE.finditer(visible):
        if mark["end"] != "<!--/-->":
            raise InputError(f"{name}:{number}: '<!--= {mark['body']} -->' is not closed by '<!--/-->' on its line.")
        view = mark["body"].split(" ")[0]
        if view not in VIEWS or not VIEWS[view].inline:
            known = ", ".join(each for each in VIEWS if VIEWS[each].inline)
            raise InputError(
                f"{name}:{number}: unknown view '{view}' within a line{nearest(view, VIEWS)}; known: {known}."
            )
        found.append(Marker(number, mark["body"], True, start + mark.start("text"), start + mark.end("text")))
    if re.search(r"<!--[=/]", INLINE.sub("", visible)):
        raise InputError(f"{name}:{number}: a marker within a line is <!--= ... -->text<!--/-->, all on one line.")
    return found


class Document:
    """A document and the tables that its markers name.

    Args:
        path: of the Markdown file; figures are named relative to its folder.
        results: folder of CSV files.

    Raises:
        InputError: the document is missing or a marker is malformed.
    """

    def __init__(self, path: Path, results: Path) -> None:
        self.path, self._folder = Path(path), Path(results)
        try:
            self.text = self.path.read_bytes().decode()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not readable as text ({error}).") from None
        markers = find_markers(self.text, self.path.name)
        self.markers = [marker for marker in markers if marker.view != "names"]
        self._names = [pair for marker in markers if marker.view == "names" for pair in self._pairs(marker)]
        self._used: set[tuple[int, str, str, str]] = set()
        self._tables: dict[str, Results] = {}

    def update(self, *, check: bool = False) -> list[str]:
        """Make every number and figure anew; with ``check`` write nothing.

        Returns:
            Line and text of each marker that had, and of each figure that showed, something else.

        Raises:
            LongstrandError: a marker asks for what does not exist; with file and line.
        """
        parts, place, stale = [], 0, []
        for marker in self.markers:
            where = f"{self.path.name}:{marker.line}"
            try:
                made, figure = self._make(marker, check)
            except LongstrandError as error:
                raise type(error)(f"{where}: {error}") from error
            made = made if marker.inline else f"{made}\n"
            stale += [f"{where}: {marker.body}"] if self.text[marker.start : marker.end] != made else []
            stale += [f"{where}: figure {figure}"] if figure else []
            parts += [self.text[place : marker.start], made]
            place = marker.end
        for line, column, old, _ in (pair for pair in self._names if pair not in self._used):
            raise UsageError(f"{self.path.name}:{line}: no table that the document shows has the {column} '{old}'.")
        text = "".join([*parts, self.text[place:]])
        if not check and text != self.text:
            write_atomically(self.path, text)
        return stale

    def _make(self, marker: Marker, check: bool) -> tuple[str, str]:
        """Return the text of a marker, and the name of its figure if that showed something else."""
        view, results, options = VIEWS[marker.view], self._table(marker.experiment), marker.options()
        for key in options:
            known = [*view.options.split(), *results.frame.columns]
            one_of(key, known, f"option of {marker.view}, or column of {results.name},")
        made, figure = view.make(results, options), options.get("figure", "")
        if marker.view != "curve" or not figure:
            return made, ""
        if Path(figure).is_absolute() or ".." in Path(figure).parts or not figure.endswith(".svg"):
            raise UsageError(f"figure={figure} is not an .svg file under the folder of the document.")
        path, drawn = self.path.parent / figure, curves(results, options)[0]
        digest = hashlib.sha256(json.dumps(_written(drawn), sort_keys=True).encode()).hexdigest()[:16]
        known_digest = DIGEST.match(path.read_text(errors="replace")) if path.exists() else None
        if known_digest and known_digest[1] == digest:
            return made, ""
        if not check:
            looks = {"style": "points"}
            panels = {
                panel["title"]: [
                    Line(**looks | {key: value for key, value in line.items() if value is not None})
                    for line in panel["series"]
                ]
                for panel in drawn.pop("panels")
            }
            svg = to_svg(draw_curves(panels, **drawn), f"{drawn['y_label']} against {drawn['x_label']}", file=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, f"<!-- longstrand {digest} -->\n{svg}\n")
        return made, figure

    def _table(self, experiment: str) -> Results:
        if experiment not in self._tables:
            results = read_results(self._folder, experiment)
            for pair in self._names:
                renamed = rename(results, *pair[1:])
                if not renamed.frame.equals(results.frame):
                    self._used.add(pair)
                results = renamed
            self._tables[experiment] = results
        return self._tables[experiment]

    def _pairs(self, marker: Marker) -> list[tuple[int, str, str, str]]:
        """List (line, column, old word, new word) of a line of names."""
        found = []
        for column, value in marker.options().items():
            for part in words(value):
                old, joint, new = (word.strip() for word in part.partition(" as "))
                if not joint or old.endswith("*") != new.endswith("*") or "*" in old[:-1] + new[:-1]:
                    where = f"{self.path.name}:{marker.line}"
                    raise InputError(f"{where}: '{part}' is not 'old as new' (or 'old* as new*').")
                found.append((marker.line, column, old, new))
        return found


def _written(value: Any) -> Any:
    """Write the numbers of a figure as text, so that its digest does not depend on the last bits."""
    if isinstance(value, dict):
        return {key: _written(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_written(inner) for inner in value]
    return f"{value:.6g}" if isinstance(value, float) else value
