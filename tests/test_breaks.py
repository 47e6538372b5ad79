"""The deliberate breaks are up to date: each changes exactly one place of an existing function."""

import ast

import pytest

from tests.break_on_purpose import BREAKS, ROOT, broken, drop, replace, unwrap


@pytest.mark.parametrize("name", BREAKS)
def test_a_break_changes_one_place(name: str) -> None:
    path, text = broken(name)
    assert ast.dump(ast.parse(text)) != ast.dump(ast.parse((ROOT / path).read_text("utf-8")))
    assert (ROOT / "tests" / f"{BREAKS[name][2]}.py").exists()


@pytest.mark.parametrize(
    ("change", "source", "expected"),
    [
        (drop("y"), "y(y)\nx, a.y = 1, y(2)", ["pass", "pass"]),
        (unwrap("conj"), "g(xp.conj(x, y + 1))", ["y + 1"]),
        (unwrap("x", nth=2), "f(x[:n], x[n:])", ["x"]),
        (replace("a", "a[::-1]"), "a = f(a)", ["a[::-1]"]),
        (replace(1, 2), "f(1, True, 1.0, '1')", ["2"]),
        (replace("max", "min"), "np.max(max_value)", ["np.min"]),
        (replace("ready", True), "ready = a.ready", ["True"]),
    ],
)
def test_changes(change, source: str, expected: list[str]) -> None:
    assert [new for _, new in change(ast.parse(source))] == expected
