"""Tables on any terminal: nothing is omitted or cut, and no line is too long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from refconv.tables import Column, print_table, print_text

COLUMNS = [
    Column("name", "all", words=True),
    Column("parameters (off budget)", "1,234,567,890"),
    Column("seconds", "12.5"),
    Column("why it did not pass", words=True),
]
REASON = "the kernel is flipped: the function computes a convolution in the sense of mathematics"
ROWS = [("first", "1,234,567,880", "12.0", REASON), ("second", "10 (−0.2 %)", "0.5", "")]
CELLS = ["first", "second", "all", "1,234,567,880", "1,234,567,890", "10 (−0.2 %)", "12.0", "0.5", "12.5"]


def printed(capsys: Any, *arguments: Any, **options: Any) -> str:
    print_table(*arguments, **options)
    return str(capsys.readouterr().out)


@pytest.mark.parametrize("width", [None, 40, 50, 60, 80, 200])
def test_every_cell_is_whole(capsys: Any, monkeypatch: pytest.MonkeyPatch, width: int | None) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if width is not None:
        monkeypatch.setenv("COLUMNS", str(width))
    out = printed(capsys, "A title that says what the rows are", COLUMNS, ROWS)
    assert all(cell in out for cell in CELLS)
    assert {*REASON.split(), "parameters", "budget)", "seconds", "pass"} <= {*out.split()}
    assert "…" not in out
    assert max(map(len, out.splitlines())) <= (width or 120)
    assert (out.count("first") == 1) is (width is None or width >= 60)


def test_numbers_wider_than_the_terminal_are_not_cut(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    for number in ("1,234,567,890,123", "+0.13 [−0.11, +0.38]"):
        assert number in printed(capsys, "", [Column("layer", words=True), Column("n")], [("a layer", number)])


def test_a_table_may_be_empty_and_have_sections(capsys: Any) -> None:
    columns = [Column("budget"), Column("groups", words=True)]
    assert printed(capsys, "None", columns, []).split()[:3] == ["None", "budget", "groups"]
    rows = [("1", "a"), ("1", "b"), ("2", "a")]
    outs = [printed(capsys, "", columns, rows, in_sections=yes) for yes in (False, True)]
    assert [out[: out.index("2")].count("\n") for out in outs] == [5, 6]


def test_rows_are_identified_and_joined_columns_stay_together(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    columns = [Column("budget"), Column("groups", words=True)]
    columns += [Column("class", words=True), Column("%", joined=True)] * 2
    rows = [("3,600", groups, "seven", share, "nine", share) for groups, share in (("dense", "12.5"), ("log", "37.5"))]
    out = printed(capsys, "", columns, rows, identifying=2)
    lines = [line.split() for line in out.splitlines() if "3,600" in line]
    assert lines == [["3,600", groups, name, share] for name in ("seven", "nine") for _, groups, _, share, *_ in rows]


def test_sentences_are_wrapped_only_for_a_limited_width(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(["[words] of a sentence"] * 20)
    for width, lines in ((None, 1), (50, 10)):
        monkeypatch.delenv("COLUMNS", raising=False)
        if width is not None:
            monkeypatch.setenv("COLUMNS", str(width))
        print_text(text)
        out = capsys.readouterr().out
        assert (out.split(), out.count("\n")) == (text.split(), lines)


def test_no_command_has_a_table_of_its_own() -> None:
    folder = Path(__file__).parent.parent / "refconv"
    texts = {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in folder.rglob("*.py")}
    assert [path for path, text in texts.items() if "rich.table" in text] == ["tables.py"]
