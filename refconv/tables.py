"""Tables that fit the terminal: a table that is too wide is printed in parts, without omitting or cutting a column."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

WORDS_AT_LEAST, WORDS_AT_MOST = 20, 60
"""Width of a column of words, whose cells may be wrapped."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes
    ----------
    title : str
        Its heading.
    footer : str
        Its last line, such as a sum.
    words : bool
        Whether its cells are words, which are left-aligned and wrapped if long, rather than numbers, which are not.
    joined : bool
        Whether it is always printed in the same part as the column before it.
    """

    title: str
    footer: str = ""
    words: bool = False
    joined: bool = False


def print_table(
    title: str,
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    identifying: int = 1,
    in_sections: bool = False,
    file: IO[str] | None = None,
) -> None:
    """Print a table.

    If it is wider than the terminal, it is printed in parts, each with the columns that identify the rows and some of
    the others. Without a terminal, its width is unlimited, unless the environment variable ``COLUMNS`` limits it.

    Parameters
    ----------
    title : str
        A line above the table; none if empty.
    columns : sequence of Column
        At least one.
    rows : sequence of sequence of str
        A cell for each column.
    identifying : int
        Number of columns, from the first, that identify the rows together.
    in_sections : bool
        Whether to draw a line between rows whose first cells differ.
    file : text file, optional
        Where to print it, by default on standard output.
    """
    console, limited = _console(file)

    def table(part: Sequence[int]) -> Table:
        made = Table(box=box.SIMPLE, pad_edge=False, show_footer=any(columns[i].footer for i in part))
        for i in part:
            column = columns[i]
            longest = max(map(cell_len, [column.footer, *(row[i] for row in rows)]))
            title = _wrapped(column.title, longest) if limited else column.title
            made.add_column(
                Text(title),
                Text(column.footer),
                justify="left" if column.words else "right",
                no_wrap=not column.words,
                overflow="fold",
                min_width=min(longest, WORDS_AT_LEAST) if column.words else longest,
                max_width=WORDS_AT_MOST if column.words else None,
            )
        for index, row in enumerate(rows):
            ends = in_sections and rows[index][0] != rows[min(index + 1, len(rows) - 1)][0]
            made.add_row(*(Text(row[i]) for i in part), end_section=ends)
        return made

    def width(part: Sequence[int]) -> int:
        return console.measure(table(part), options=console.options.update(width=10_000)).minimum

    units: list[list[int]] = []
    for i in range(identifying, len(columns)):
        if columns[i].joined and units:
            units[-1].append(i)
        else:
            units.append([i])
    first = list(range(identifying))
    parts = [[*first]]
    for unit in units:
        if len(parts[-1]) > len(first) and width([*parts[-1], *unit]) > console.width:
            parts.append([*first])
        parts[-1] += unit
    console.width = max(console.width, *(width(part) for part in parts))
    if title:
        console.print(Text(title, "italic"))
    for part in parts:
        console.print(table(part))


def print_text(text: str, style: str = "") -> None:
    """Print sentences on standard output, wrapped where :func:`print_table` limits its width."""
    console, _ = _console()
    console.print(Text(text, style))


def _console(file: IO[str] | None = None) -> tuple[Console, bool]:
    """Return a console, and whether its width is limited: by a terminal, or by the variable ``COLUMNS``."""
    console = Console(file=file, highlight=False)
    limited = console.is_terminal or bool(os.environ.get("COLUMNS"))
    if not limited:
        console.width = 10_000
    return console, limited


def _wrapped(title: str, width: int) -> str:
    """Return a heading in lines of this width, or of its longest word."""
    width = max([width, *map(len, title.split())])
    return "\n".join(wrapped for line in title.split("\n") for wrapped in textwrap.wrap(line, width))


def shape_text(shape: Sequence[int]) -> str:
    """Return a shape as 3×227×227."""
    return "×".join(map(str, shape))
