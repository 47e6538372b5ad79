"""The breaks on purpose still say what stands in the code: a break that can no longer be made proves nothing."""

import pytest

from tests.break_on_purpose import BREAKS, ROOT


@pytest.mark.parametrize("name", BREAKS)
def test_the_line_to_break_stands_once(name: str) -> None:
    file, old, new = BREAKS[name]
    assert (ROOT / "refconv" / file).read_text("utf-8").count(old) == 1
    assert new != old
