"""A Markdown document whose numbers are regenerated from tidy results.

Blocks stand on lines of their own, numbers within a line::

    <!-- table stage1 arm="k-mer regression as 6-mer regression; mixed_6mer_1m: full" -->
    (whatever stands here is replaced)
    <!-- end -->

    Pre-training is worth <!--= difference stage1 ours="a: full" against="a: random init" show=mean -->+0.1<!--/-->.

    <!-- names task="own/* as *" arm="mixed_6mer_1m: full as fine-tuned" -->

The first word is a view (`longstrand.benchmarks.reports.views.VIEWS`, and ``curve``), the second an experiment:
``stage1`` is ``stage1.csv`` in the folder of results. A line with ``names`` gives the values of a column other words,
in all tables of the document; the other markers then use the new words. Text in fenced code and in backticks is left
alone, so a document can explain its own markers. Anything else in the document stays as it is, byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from longstrand.benchmarks.reports.figures import CURVE, drawn_digest, figure_digest, make_curve, write_figure
from longstrand.benchmarks.reports.tidy import Tidy, open_tidy
from longstrand.benchmarks.reports.views import VIEWS, View, render
from longstrand.benchmarks.reports.views import words as words_of
from longstrand.errors import InputError, LongstrandError, UsageError, nearest, one_of
from longstrand.runtime import write_atomically

BLOCK = re.compile(r"^[ \t]*<!--[ \t]*(?P<body>[^=\s].*?)[ \t]*-->[ \t]*$")
INLINE = re.compile(r"<!--=(?P<body>.*?)-->")
INLINE_END = "<!--/-->"
OPTION = re.compile(r'\s*(\w+)=("[^"]*"|[^\s"]+)(?=\s|$)')
FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})")
ALL_VIEWS: dict[str, View] = {**VIEWS, "curve": CURVE}


NAMES = "names"


@dataclass(frozen=True)
class Marker:
    """A place in the document.

    Attributes:
        line: number of the line of its beginning, from 1.
        view: what to show.
        experiment: whose numbers.
        options: as written.
        inline: within a line.
        start: first character of the generated text.
        end: character after it.
    """

    line: int
    view: str
    experiment: str
    options: dict[str, str]
    inline: bool
    start: int
    end: int

    @property
    def title(self) -> str:
        """Name it for a person."""
        given = "".join(f" {key}={value}" for key, value in self.options.items())
        return f"{self.view} {self.experiment}{given}"


def find_markers(text: str, name: str = "document") -> list[Marker]:
    """Find all markers of a document.

    Args:
        text: Markdown.
        name: of the file, for errors.

    Raises:
        InputError: a marker is malformed, not closed, or closed twice.
    """
    found: list[Marker] = []
    opened: tuple[int, str, str, dict[str, str], int] | None = None
    fence, place = "", 0
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        start, place = place, place + len(line)
        mark = FENCE.match(line)
        if mark and opened is None and (not fence or line.strip().startswith(fence)):
            fence = "" if fence else mark.group(1)
            continue
        if fence:
            continue
        block = BLOCK.match(line.rstrip("\r\n"))
        body = block.group("body") if block else ""
        if body == "end":
            if opened is None:
                raise InputError(f"{name}:{number}: '<!-- end -->' without a block before it{_misspelt(text, number)}.")
            found.append(Marker(*opened[:4], False, opened[4], start))
            opened = None
        elif body.split(" ")[0] == NAMES and opened is None:
            found.append(
                Marker(number, NAMES, "", _options(body[len(NAMES) :], f"{name}:{number}"), False, place, place)
            )
        elif body.split(" ")[0] in ALL_VIEWS:
            if opened is not None:
                raise InputError(f"{name}:{number}: the block of line {opened[0]} is not closed by '<!-- end -->'.")
            parsed = _parse(body, f"{name}:{number}")
            if not ALL_VIEWS[parsed[0]].block:
                raise InputError(f"{name}:{number}: '{parsed[0]}' stands within a line: <!--= {body} -->text<!--/-->.")
            opened = (number, *parsed, place)
        elif opened is None:
            found += _inline(line, start, number, name)
    if opened is not None:
        raise InputError(f"{name}:{opened[0]}: the block '{opened[1]} {opened[2]}' is not closed by '<!-- end -->'.")
    return found


def _misspelt(text: str, number: int) -> str:
    """Guess which comment above a stray end was meant to begin a block."""
    for line in reversed(text.splitlines()[: number - 1]):
        block = BLOCK.match(line)
        if block:
            return nearest(block.group("body").split(" ")[0], ALL_VIEWS)
    return ""


def _inline(line: str, start: int, number: int, name: str) -> list[Marker]:
    """Find the markers within a line; those in backticks are text."""
    visible = re.sub(r"`[^`]*`", lambda code: "`" * len(code.group()), line)
    found, place = [], 0
    while True:
        mark = INLINE.search(visible, place)
        end = visible.find(INLINE_END, mark.end() if mark else place)
        if mark is None:
            if end >= 0:
                raise InputError(f"{name}:{number}: '{INLINE_END}' without '<!--= ... -->' before it.")
            if "<!--=" in visible[place:]:
                raise InputError(
                    f"{name}:{number}: a marker that begins with '<!--=' ends on the same line with '-->'."
                )
            return found
        following = INLINE.search(visible, mark.end())
        if end < 0 or (following and following.start() < end):
            raise InputError(f"{name}:{number}: '{mark.group()}' is not closed by '{INLINE_END}' on the same line.")
        parsed = _parse(mark.group("body").strip(), f"{name}:{number}")
        if not ALL_VIEWS[parsed[0]].inline:
            raise InputError(f"{name}:{number}: '{parsed[0]}' is a block: <!-- {mark.group('body').strip()} -->.")
        found.append(Marker(number, *parsed, True, start + mark.end(), start + end))
        place = end + len(INLINE_END)


def _parse(body: str, where: str) -> tuple[str, str, dict[str, str]]:
    """Read ``VIEW EXPERIMENT key=value ...``."""
    parts = body.split(None, 2)
    if parts and parts[0] not in ALL_VIEWS:
        raise InputError(
            f"{where}: unknown view '{parts[0]}'{nearest(parts[0], ALL_VIEWS)}; known: {', '.join(ALL_VIEWS)}."
        )
    if len(parts) < 2 or "=" in parts[1]:
        raise InputError(f"{where}: '{body}' names no experiment; write VIEW EXPERIMENT key=value ...")
    return parts[0], parts[1], _options(parts[2] if len(parts) > 2 else "", where)


def _options(rest: str, where: str) -> dict[str, str]:
    place, options = 0, {}
    while rest[place:].strip():
        option = OPTION.match(rest, place)
        if option is None:
            raise InputError(f"{where}: '{rest[place:].strip()}' is not key=value or key=\"several words\".")
        if option.group(1) in options:
            raise InputError(f"{where}: '{option.group(1)}' is given twice.")
        options[option.group(1)] = option.group(2).strip('"')
        place = option.end()
    return options


def regenerate(text: str, open_results: Callable[[str], Tidy], name: str = "document") -> tuple[str, list[Marker]]:
    """Make the text anew.

    Args:
        text: Markdown.
        open_results: gives the table of an experiment.
        name: of the file, for errors.

    Returns:
        The new text and the markers that had another text.

    Raises:
        LongstrandError: of the kind that was raised, with file and line of the marker.
    """
    parts, place, stale = [], 0, []
    for marker in find_markers(text, name):
        if marker.view == NAMES:
            continue
        try:
            made = _make(marker, open_results(marker.experiment))
        except LongstrandError as error:
            raise type(error)(f"{name}:{marker.line}: {error}") from error
        made = made if marker.inline else f"{made}\n"
        if text[marker.start : marker.end] != made:
            stale.append(marker)
        parts += [text[place : marker.start], made]
        place = marker.end
    return "".join([*parts, text[place:]]), stale


def _make(marker: Marker, tidy: Tidy) -> str:
    if marker.view != "curve":
        return render(marker.view, tidy, marker.options)
    for key in marker.options:
        one_of(key, [*CURVE.options, *tidy.columns], f"option of curve, or column of {tidy.name},")
    return make_curve(tidy, marker.options)


@dataclass(frozen=True)
class Update:
    """What an update of a document found.

    Attributes:
        num_markers: blocks and numbers in all.
        stale: title and line of those that had to change, or would have to.
    """

    num_markers: int
    stale: tuple[str, ...]


def update_document(path: Path, results: Path, *, check: bool = False) -> Update:
    """Regenerate a document and its figures from a folder of results.

    Args:
        path: of the Markdown file; figures are named relative to its folder.
        results: folder of CSV files.
        check: write nothing, only say what would change.

    Raises:
        InputError: the document is missing or a marker is malformed.
        UsageError: a marker asks for what does not exist, or a figure would lie outside the folder of the document.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as text ({error}).") from None
    every = find_markers(text, path.name)
    markers = [marker for marker in every if marker.view != NAMES]
    words = [marker for marker in every if marker.view == NAMES]
    tables: dict[str, Tidy] = {}
    unused = {(marker.line, column, old) for marker in words for column, old, _ in _pairs(marker, path.name)}

    def open_results(experiment: str) -> Tidy:
        if experiment not in tables:
            tidy = open_tidy(results, experiment)
            for marker in words:
                for column, old, new in _pairs(marker, path.name):
                    before = tidy.rows
                    tidy = tidy.renamed(column, old, new)
                    unused.difference_update({(marker.line, column, old)} if tidy.rows != before else ())
            tables[experiment] = tidy
        return tables[experiment]

    made, stale = regenerate(text, open_results, path.name)
    for line, column, old in sorted(unused):
        raise UsageError(f"{path.name}:{line}: no table that the document shows has the {column} '{old}'.")
    said = [f"{path.name}:{marker.line}: {marker.title}" for marker in stale]
    for marker in markers:
        if "figure" in marker.options and marker.view == "curve":
            figure = _figure_path(path, marker)
            tidy = tables[marker.experiment]
            if drawn_digest(figure) != figure_digest(tidy, marker.options):
                said.append(f"{path.name}:{marker.line}: figure {marker.options['figure']}")
            if not check:
                write_figure(figure, tidy, marker.options)
    if stale and not check:
        write_atomically(path, made)
    return Update(len(markers), tuple(said))


def _star(word: str) -> int:
    """Where its only star may be: at the end."""
    return len(word) - 1 if word.endswith("*") else -1


def _pairs(marker: Marker, name: str) -> list[tuple[str, str, str]]:
    """List (column, old word, new word) of a line of names."""
    found = []
    for column, value in marker.options.items():
        for part in words_of(value):
            old, joint, new = (word.strip() for word in part.partition(" as "))
            bad = old.endswith("*") != new.endswith("*")
            if not joint or bad or [old.find("*"), new.find("*")] != [_star(old), _star(new)]:
                raise InputError(f"{name}:{marker.line}: '{part}' is not 'old as new' (or 'old* as new*').")
            found.append((column, old, new))
    return found


def _figure_path(path: Path, marker: Marker) -> Path:
    name = Path(marker.options["figure"])
    if name.is_absolute() or ".." in name.parts or name.suffix != ".svg":
        raise UsageError(
            f"{path.name}:{marker.line}: figure={name} is not an .svg file under the folder of the document."
        )
    return path.parent / name
