"""The pictures of the notebooks: marks are visible without colours."""

import numpy as np
import pytest

plt = pytest.importorskip("matplotlib.pyplot", reason="the extra 'notebooks' is not installed")
pytest.importorskip("IPython", reason="the extra 'notebooks' is not installed")

from matplotlib.colors import to_rgb  # noqa: E402

from refconv.notebooks import draw  # noqa: E402 - not skipped if it is broken


def test_hatching_is_visible_in_grey_on_every_ground():
    plt.switch_backend("agg")
    figure, axes = plt.subplots()
    draw.grid(axes, np.full((2, 2), np.nan), marked=[[True], [False]], hatched=[True, False])
    hatched = [patch for patch in axes.patches if patch.get_hatch()]
    assert len(hatched) == 2
    for patch in hatched:
        ground, lines = (np.dot(to_rgb(colour), (0.299, 0.587, 0.114)) for colour in (patch.get_fc(), patch.get_ec()))
        assert abs(ground - lines) > 0.3
    plt.close(figure)
