"""Plans: every tile is covered once, sizes agree with hand calculation, and no workspace changes how sums are cut."""

import pytest

from refconv import ChannelGroups, logarithmic_groups, set_workspace, uniform_groups
from refconv.cpu import passes
from refconv.cpu.plan import TILE_BYTES, Cuts, Piece, make_plan, row_window
from refconv.integers import cut
from refconv.shapes import geometry
from tests.cpu_helpers import described
from tests.helpers import cut_into


def indices(slices):
    return [i for part in slices for i in range(part.start, part.stop)]


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    "groups",
    [1, 2, 6, uniform_groups(12, 18, 3), logarithmic_groups(12, 18, 3), ChannelGroups([[3, 0], [0]], [[1], [0]])],
)
@pytest.mark.parametrize("sums_batch", [False, True])
@pytest.mark.parametrize("budget", [1, 500, 5000, 10**6])
def test_a_plan_covers_everything_once(groups, split, sums_batch, budget):
    if isinstance(groups, ChannelGroups):
        weights, channels = list(groups.weight_shapes((3, 2))), groups.c_in
    else:
        weights, channels = (18, 12 // groups, 3, 2), 12
    call = described((5, channels, 9, 8), weights, stride=2, padding=1, groups=groups)
    with cut_into(budget):
        plan = make_plan(call, 4, Cuts(split, sums_batch))
    assert indices(plan.batches) == list(range(5))
    assert indices(slice(*rows) for rows in plan.rows) == list(range(call.geometry.output[0]))
    covered = [(p.block, g, c) for p in plan.pieces for g in indices([p.groups]) for c in indices([p.channels])]
    assert covered == [(b, g, c) for b, (count, C, _) in enumerate(call.sides) for g in range(count) for c in range(C)]
    assert indices(p.image for p in plan.pieces) == list(range(sum(call.groups.in_sizes)))
    if not split:
        assert indices(p.positions for p in plan.pieces) == list(range(sum(call.groups.out_sizes)))
    for start, stop in passes._image_rows(call.geometry, plan.rows):
        first, last = passes._windows_touching(call.geometry, (start, stop))
        for row in range(call.geometry.output[0]):  # by the definition: window `row` reads rows 2·row−1 … 2·row+1
            touches = any(start <= 2 * row - 1 + t < stop for t in range(3))
            assert not touches or first <= row < last


# --- Plans worked out by hand ---


def plan_of(cuts, c_in, c_out, groups, batch=5):
    """Return the plan of a convolution with k = 3×2, o = 29×9 and P = 62×10, which is small enough to plan by hand.

    A row of i image and p position channels takes 4·(i·6·9 + 2·p·9 + i·2·10) = 4·(74·i + 18·p) bytes. A window
    spans 5 rows and the next begins 2 rows further, so that tiles of rows share 5 // 2 = 2 rows.
    """
    weights = (c_out, c_in // groups, 3, 2) if isinstance(groups, int) else list(groups.weight_shapes((3, 2)))
    more = {"stride": (2, 1), "padding": ((1, 1), (0, 1)), "dilation": (2, 1)}
    call = described((batch, c_in, 60, 9), weights, groups=groups, **more)
    assert call.geometry.output == (29, 9)
    assert call.geometry.padded == (62, 10)
    return make_plan(call, 4, cuts)


FORWARD = Cuts(split_channels=False, sums_batch=False)
INPUT = Cuts(split_channels=True, sums_batch=False)
WEIGHT = Cuts(split_channels=True, sums_batch=True)
ROW = 4 * (74 * 2 + 18 * 3)  # of one of two groups that read 2 channels and write 3: 808 bytes


@pytest.mark.parametrize(
    ("tile", "workspace", "cuts", "samples", "rows", "pieces", "tile_bytes"),
    [
        # a single tile: 5 samples, 29 rows, 2 groups
        (10**6, 10**6, FORWARD, 5, 29, 1, 5 * 29 * 2 * ROW),
        # the workspace cuts samples (as many as fit with both groups), then groups, never rows
        (10**6, 3 * 29 * 2 * ROW, FORWARD, 3, 29, 1, 3 * 29 * 2 * ROW),
        (10**6, 3 * 29 * 2 * ROW - 1, FORWARD, 2, 29, 1, 2 * 29 * 2 * ROW),
        (10**6, 29 * 2 * ROW, FORWARD, 1, 29, 1, 29 * 2 * ROW),
        (10**6, 29 * 2 * ROW - 1, FORWARD, 1, 29, 2, 29 * ROW),
        (10**6, 1, FORWARD, 1, 29, 2, 29 * ROW),
        # the tile cuts rows: as many as fit less the two that neighbours share, but at least those two if they fit
        (29 * ROW, 10**6, FORWARD, 1, 29, 2, 29 * ROW),
        (29 * ROW - 1, 10**6, FORWARD, 1, 26, 2, 26 * ROW),
        (8 * ROW, 10**6, FORWARD, 1, 6, 2, 6 * ROW),
        (5 * ROW, 10**6, FORWARD, 1, 3, 2, 3 * ROW),
        (4 * ROW - 1, 10**6, FORWARD, 1, 2, 2, 2 * ROW),
        (2 * ROW, 10**6, FORWARD, 1, 2, 2, 2 * ROW),
        (2 * ROW - 1, 10**6, FORWARD, 1, 1, 2, ROW),
        (1, 10**6, FORWARD, 1, 1, 2, ROW),
        # where rows cannot be cut, a tile may be eight times as large, but no more is gathered in it
        (29 * 9 * ROW // 8, 10**6, INPUT._replace(cut_rows=False), 1, 29, 2, 29 * ROW),
        (29 * ROW // 8 + 1, 10**6, INPUT._replace(cut_rows=False), 1, 29, 2, 29 * ROW),
        # a sum over the batch is cut by the tile alone; its bytes include weight gradients of 2·6·3 numbers per group:
        # one per sample and their sum, or two if one product takes all samples
        (10**6, 1, WEIGHT, 5, 29, 1, 5 * 29 * 2 * ROW + 6 * 2 * 2 * 6 * 3 * 4),
        (10**6, 1, WEIGHT._replace(joins_samples=True), 5, 29, 1, 5 * 29 * 2 * ROW + 2 * 2 * 2 * 6 * 3 * 4),
        (2 * 29 * 2 * ROW, 1, WEIGHT, 2, 29, 1, 2 * 29 * 2 * ROW + 3 * 2 * 2 * 6 * 3 * 4),
        (29 * ROW, 1, WEIGHT, 1, 29, 2, 29 * ROW + 2 * 2 * 6 * 3 * 4),
    ],
)
def test_a_plan_by_hand(tile, workspace, cuts, samples, rows, pieces, tile_bytes):
    with cut_into(tile), set_workspace(workspace):
        plan = plan_of(cuts, 4, 6, 2)
    assert plan.batches == cut(5, samples)
    assert plan.rows == tuple((start, min(start + rows, 29)) for start in range(0, 29, rows))
    assert plan.pieces == tuple(
        Piece(
            0,
            groups=groups,
            channels=slice(0, 2),
            image=slice(2 * groups.start, 2 * groups.stop),
            positions=slice(3 * groups.start, 3 * groups.stop),
        )
        for groups in cut(2, 2 // pieces)
    )
    assert plan.tile_bytes == tile_bytes


@pytest.mark.parametrize(
    ("tile", "rows", "channels"),
    [
        # a group of 7 image and 3 position channels: a row of i image channels takes 296·i + 216 bytes
        (29 * (296 * 7 + 216), 29, 7),
        # rows are cut first; two of them are shared by neighbours
        (29 * (296 * 7 + 216) - 1, 26, 7),
        (29 * (296 * 3 + 216), 11, 7),
        # where at most 4·2 rows of all channels fit, the channels are halved, and so on; pieces are of about one size
        (9 * (296 * 7 + 216), 7, 7),
        (9 * (296 * 7 + 216) - 1, 16, 3),
        (29 * (296 + 216), 11, 3),
        (10 * (296 + 216), 8, 1),  # 5120 // 8 − 216 = 424 bytes for channels of 296
        (2 * (296 + 216), 2, 1),
        (1, 1, 1),
    ],
)
def test_a_plan_that_cuts_channels_by_hand(tile, rows, channels):
    with cut_into(tile), set_workspace(2**40):
        plan = plan_of(WEIGHT, 14, 6, 2)
    assert plan.rows == tuple((start, min(start + rows, 29)) for start in range(0, 29, rows))
    assert plan.batches == cut(5, 1)
    assert plan.pieces == tuple(
        Piece(
            0,
            groups=slice(g, g + 1),
            channels=part,
            image=slice(7 * g + part.start, 7 * g + part.stop),
            positions=slice(3 * g, 3 * g + 3),
        )
        for g in range(2)
        for part in cut(7, channels)
    )
    assert plan.tile_bytes == rows * (296 * channels + 216) + 2 * channels * 6 * 3 * 4


def test_threads_share_a_large_weight_gradient_by_parts_of_the_batch_or_pieces_of_the_channels():
    """AlexNet's third layer has 3.4 MiB of weights in single precision: more than a tile in double."""
    call, cuts = described((8, 256, 13, 13), (384, 256, 3, 3), padding=1), WEIGHT._replace(by_rows=True)
    single = make_plan(call, 4, cuts)
    assert [piece.channels for piece in single.pieces] == [slice(0, 256)]
    assert (single.batches, single.parts) == (cut(8, 2), 4)
    double = make_plan(call, 8, cuts)
    assert [piece.channels for piece in double.pieces] == list(cut(256, 37))  # a quarter of a tile each
    assert (double.batches, double.parts) == (cut(8, 3), 1)
    assert single.rows == double.rows == ((0, 13),)


def test_samples_of_one_product_are_gathered_whatever_the_workspace():
    """A sample takes 29·4·(74·4 + 18·6) bytes, so that 178 fit 8 MiB; fewer are cut into four slices."""
    sample = 29 * 4 * (74 * 4 + 18 * 6)
    assert 178 * sample < 2 * TILE_BYTES < 179 * sample
    for workspace in (1, 2**40):
        with set_workspace(workspace):
            for batch, samples in ((100, 25), (178 * 8, 178)):
                plan = plan_of(FORWARD._replace(joins_samples=True), 4, 6, 1, batch)
                assert plan.batches == cut(batch, samples)


def test_many_small_groups_are_gathered_in_larger_tiles():
    """A sample of 16 groups of one channel takes 29·16·4·(74 + 18) bytes, so that 24 fit 4 MiB and 49 fit 8 MiB."""
    sample = 29 * 16 * 4 * (74 + 18)
    assert 24 * sample < TILE_BYTES < 25 * sample
    assert 49 * sample < 2 * TILE_BYTES < 50 * sample
    with set_workspace(2**40):
        assert plan_of(FORWARD, 16, 16, 16, 49 * 8).batches == cut(49 * 8, 49)
        assert plan_of(FORWARD, 15, 15, 15, 49 * 8).batches != cut(49 * 8, 49)
    with set_workspace(sample):
        assert plan_of(FORWARD, 16, 16, 16, 49 * 8).batches == cut(49 * 8, 1)


def test_a_plan_of_unequal_groups_by_hand():
    """Blocks of two groups 1→2 and one group 3→1: rows are cut for the larger, samples and groups for each."""
    groups = ChannelGroups.from_sizes([1, 1, 3], [2, 2, 1])
    small, large = 4 * (74 + 36), 4 * (3 * 74 + 18)  # 440 and 960 bytes a row
    with cut_into(8 * large), set_workspace(2**40):
        plan = plan_of(FORWARD, 5, 5, groups)
    assert plan.rows == tuple((start, min(start + 6, 29)) for start in range(0, 29, 6))
    assert plan.batches == cut(5, 1)
    assert plan.pieces == (
        Piece(0, groups=slice(0, 2), channels=slice(0, 1), image=slice(0, 2), positions=slice(0, 4)),
        Piece(1, groups=slice(0, 1), channels=slice(0, 3), image=slice(2, 5), positions=slice(4, 5)),
    )
    assert plan.tile_bytes == 6 * large
    with cut_into(4 * 29 * large):
        with set_workspace(2**40):
            # Four fit, but threads share them: two slices of each of two blocks, or four of a single block.
            assert plan_of(FORWARD, 5, 5, groups).batches == cut(5, 3)
            assert plan_of(FORWARD, 3, 1, 1).batches == cut(5, 2)
        with set_workspace(29 * 2 * small):
            plan = plan_of(FORWARD, 5, 5, groups)
    assert plan.batches == cut(5, 1)
    assert [piece.groups for piece in plan.pieces] == [slice(0, 2), slice(0, 1)]
    assert plan.tile_bytes == 29 * large


def test_an_empty_plan_has_no_tiles():
    assert plan_of(FORWARD, 4, 6, 2, batch=0).batches == ()
    nothing = plan_of(WEIGHT, 0, 3, ChannelGroups([[]], [[0, 1, 2]], c_in=0))
    assert nothing.pieces == (Piece(0, slice(0, 1), slice(0, 0), slice(0, 0), slice(0, 3)),)


@pytest.mark.parametrize(("stride", "dilation", "k"), [(1, 1, 1), (2, 3, 2), (5, 1, 2), (1, 4, 3)])
def test_a_row_window_is_what_the_windows_span(stride, dilation, k):
    geo = geometry((40,), (k,), stride=stride, padding=((2, 1),), dilation=dilation)
    for start, stop in ((0, 1), (0, 4), (2, 5)):
        read = [row * stride + t * dilation for row in range(start, stop) for t in range(k)]
        assert row_window(geo, start, stop) == (min(read), max(read) + 1)
