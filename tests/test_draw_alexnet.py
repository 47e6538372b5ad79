"""The pictures of AlexNet: true to size, with the right arrows and colours."""

import numpy as np
import pytest

plt = pytest.importorskip("matplotlib.pyplot", reason="the extra 'notebooks' is not installed")
pytest.importorskip("IPython", reason="the extra 'notebooks' is not installed")

from refconv.notebooks import draw_alexnet  # noqa: E402 - not skipped if it is broken
from refconv.notebooks.draw_alexnet import SLANT, Stage  # noqa: E402

STAGES = [Stage("a", 40, 30), Stage("b", 100, 8, crosses=True), Stage("c", 900, 1, crosses=True)]


@pytest.fixture
def drawn():
    plt.switch_backend("agg")
    figure = draw_alexnet.towers(90, STAGES, per_channel=0.2)
    yield figure.axes[0]
    plt.close(figure)


def test_blocks_are_true_to_size(drawn):
    faces = [np.array(patch.get_xy())[:4] for patch in drawn.patches]
    assert len(faces) == 3 * (1 + 2 * len(STAGES))
    sizes = [(90, 3), *((stage.side, stage.channels) for stage in STAGES for _ in range(2))]
    for (side, channels), front, top, end in zip(sizes, faces[::3], faces[1::3], faces[2::3], strict=True):
        assert np.ptp(front, axis=0) == pytest.approx([0.2 * channels, side])
        assert np.ptp(top, axis=0) == pytest.approx([0.2 * channels + SLANT * side, SLANT * side])
        assert np.ptp(end, axis=0) == pytest.approx([SLANT * side, (1 + SLANT) * side])
    corners = np.concatenate(faces)
    assert np.all(corners >= [drawn.get_xlim()[0], drawn.get_ylim()[0]])
    assert np.all(corners <= [drawn.get_xlim()[1], drawn.get_ylim()[1]])


def test_arrows_cross_to_layers_that_read_both_devices(drawn):
    arrows = [text for text in drawn.texts if getattr(text, "arrow_patch", None)]
    dashed = [arrow for arrow in arrows if arrow.arrow_patch.get_linestyle() == "--"]
    assert (len(arrows), len(dashed)) == (2 * 3 + 2 * 2, 2 * 2)
    middle = np.mean(drawn.get_xlim())
    assert all((arrow.xyann[0] - middle) * (arrow.xy[0] - middle) < 0 for arrow in dashed)


def test_sizes_are_written_beside_the_blocks(drawn):
    written = [text.get_text() for text in drawn.texts]
    assert all(written.count(text) == 2 for text in ("40 × 30 × 30", "100 × 8 × 8", "900"))


def test_kernels_keep_their_colours():
    weight = np.zeros((3, 3, 2, 2))
    weight[1, 0] = 2  # red
    weight[2, :, 0, 1] = -0.5  # dark at the top right
    figure, axes = plt.subplots()
    draw_alexnet.kernels(axes, weight, ["x", "y", "z"], columns=2)
    shown = [np.asarray(image.get_array()) for image in axes.images]
    assert np.all(shown[0] == 0.5)
    assert shown[1][0, 0].tolist() == [1, 0.5, 0.5]
    assert [shown[2][0, 1].tolist(), shown[2][1, 0].tolist()] == [[0, 0, 0], [0.5, 0.5, 0.5]]
    assert [text.get_text() for text in axes.texts] == ["x", "y", "z"]
    assert [tuple(image.get_extent()[::2]) for image in axes.images] == [(0, 0), (1.15, 0), (0, -1.5)]
    plt.close(figure)
