"""docs/what-is-checked.md describes what the checker runs: it is made from the tables, and complete."""

import re
from pathlib import Path

import pytest

from refconv.testing.checker.plan import plan
from refconv.testing.regimes import LAYERS, SIZES, SPECIAL
from tests.helpers import script

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "what-is-checked.md").read_text("utf-8")


def table(first: str) -> list[list[str]]:
    """Return the rows of the tables whose first column has this head."""
    tables = re.findall(rf"^\| {first} \|.*\n\|[-:|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for text in tables for line in text.splitlines()]


@pytest.mark.long
def test_page_is_up_to_date():
    assert script("docs/make_regimes.py").page() == PAGE, "run python docs/make_regimes.py"


def test_page_lists_every_regime():
    layers, sizes, relations = map(table, ("layer", "number", "relation"))
    in_order = sorted(LAYERS, key=lambda layer: layer.transposed)
    assert [row[0] for row in layers] == [layer.name for layer in in_order]
    assert [row[0] for row in relations] == [relation.name for relation in SPECIAL]
    assert {name: tuple(map(int, values.split(","))) for name, values in sizes} == dict(SIZES)


def test_every_layer_and_relation_of_the_page_runs_somewhere():
    assert all(re.fullmatch(r"[123](, [123])*", row[-1]) for row in table("layer"))
    assert all({"●", "○"} & set(row[1:]) for row in table("relation"))


@pytest.mark.parametrize(("d", "transposed"), [(1, False), (2, True)])
def test_page_counts_what_a_check_runs(d, transposed):
    kind = f"{d}-d{' transposed' if transposed else ''}"
    (counts, (_, pairs)) = (row for row in table("convolution") if row[0] == kind)
    everything = plan(d, ("bias", "stride", "padding", "dilation", "groups"), transposed, "float32", 200, 0)
    assert counts[-1] == f"**{len(everything)}**"
    assert counts[3] == pairs
    *parts, real, special = map(int, counts[1:-1])
    assert real + special < len(everything) <= sum(parts) + real + special
