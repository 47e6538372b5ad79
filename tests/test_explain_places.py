"""Where elements, channels and factors are wrong is said to the last place, and gradients have names as forward passes.

Every wrong function here changes the operands or the results of a right one.
"""

import numpy as np
import pytest

from refconv.testing import check_conv, explain_conv
from refconv.testing.checker.calls import Caller
from refconv.testing.explain import explain
from refconv.testing.explain.linearity import differ
from refconv.testing.mutants import Conv, ConvTranspose
from refconv.testing.oracles.problems import Problem

SUPPORTS = ("bias", "stride", "padding", "dilation", "groups")
GRADIENTS = ("grad_x", "grad_weight", "grad_bias")


def forward_text(change):
    """Return the explanation of ``change(conv, x, weight, bias, integers)``, where conv is right."""

    def forward(x, weight, bias, *integers):
        return change(Conv().forward, x, weight, bias, integers)

    return explain_conv(forward, supports=SUPPORTS).parts["forward"].text


def gradient_text(part, change, convolution=Conv, **options):
    """Return the explanation of a gradient g, changed to ``change(g, x, weight, grad_output, integers)``."""

    def backward(grad_output, x, weight, *integers):
        gradients = list(convolution().backward(grad_output, x, weight, *integers))
        index = GRADIENTS.index(part)
        gradients[index] = change(gradients[index], x, weight, grad_output, integers)
        return tuple(gradients)

    forward = convolution().forward
    return explain_conv(forward, backward, supports=SUPPORTS, **options).parts[part].text


# --- Elements in other places ----------------------------------------------------------------------------------------


def lanes_exchanged(w):
    k, c, *taps = w.shape
    if k % 2 or c % 2:
        return w
    return w.reshape(k // 2, 2, c // 2, 2, *taps).transpose(0, 3, 2, 1, 4, 5).reshape(w.shape)


def test_blocks_of_channels_with_their_lanes_exchanged():
    text = forward_text(lambda conv, x, w, b, i: conv(x, lanes_exchanged(w), b, *i))
    assert text.startswith(
        "w is as if reshaped from (K/2, 2 of K, C/G/2, 2 of C/G, k1, k2) to (K/2, 2 of C/G, C/G/2, 2 of K, k1, k2)"
    )


def test_elements_that_are_exchanged_are_listed():
    """Without another problem that shows the order of blocks."""

    def change(conv, x, w, b, i):
        return conv(x, lanes_exchanged(w) if w.shape == (4, 4, 3, 2) else w, b, *i)

    text = forward_text(change)
    assert "w[0,1,:,:] and w[1,0,:,:] are exchanged; w[0,3,:,:] and w[1,2,:,:] are exchanged" in text


def test_an_order_of_blocks_is_named_if_another_problem_shows_it():
    backward = Conv().backward

    def blocked(grad_output, x, weight, *integers):
        grad_x, grad_weight, grad_bias = backward(grad_output, x, weight, *integers)
        return grad_x, lanes_exchanged(grad_weight), grad_bias

    (failure,) = check_conv(Conv().forward, blocked).failures
    assert (
        "grad_weight is as if reshaped from (K/2, 2 of C/G, C/G/2, 2 of K, k1, k2) to "
        "(K/2, 2 of K, C/G/2, 2 of C/G, k1, k2)" in failure.explanation
    )


def test_a_gradient_with_elements_that_no_window_reads_is_reshaped():
    """The stride leaves gaps in grad_x, which move with the elements."""
    text = gradient_text("grad_x", lambda grad, *_: grad.transpose(0, 2, 3, 1).reshape(grad.shape))
    assert text.startswith("grad_x is as if reshaped from (N, D1, D2, C) to (N, C, D1, D2)")


def test_positions_out_of_place_are_all_listed():
    order = [0, 1, 2, 0, 1, 5, 3, 4, 5, 3, 7, 8, 6, 7, 8]

    def change(conv, x, w, b, i):
        y = conv(x, w, b, *i)
        flat = y.reshape(*y.shape[:2], -1)
        return flat[:, :, order].reshape(y.shape) if flat.shape[2] == len(order) else y

    text = forward_text(change)
    assert f"in the order (D1, D2), elements 0 to 14 are what {', '.join(map(str, order))} should be." in text


def test_channels_that_are_mixed_up_are_all_listed():
    def change(grad, x, weight, grad_output, integers):
        mixed = grad.copy()
        mixed[1, 2] += grad[0, 0]
        mixed[3, 1] = 0
        return mixed

    text = gradient_text("grad_weight", change)
    assert "grad_weight[1,2] adds g[0]·x[0] + g[1]·x[2]; grad_weight[3,1] adds nothing; the others are right." in text


def test_all_groups_in_the_same_weights():
    def change(grad, x, weight, grad_output, integers):
        groups = integers[-1]
        total = grad.reshape(groups, -1, *grad.shape[1:]).sum(0)
        return np.concatenate([total] * groups)

    text = gradient_text("grad_weight", change)
    assert text == "The weight rows of every group contain the sum over all groups."


def test_a_buffer_that_keeps_the_end_of_the_sample_before():
    def forward(x, weight, bias, stride, padding, dilation, groups):
        (p,) = padding
        padded = np.pad(x, [(0, 0), (0, 0), (p, p)])
        if 0 < p <= x.shape[2]:
            padded[1:, :, :p] = x[:-1, :, -p:]
        return Conv().forward(padded, weight, bias, stride, (0,), dilation, groups)

    text = explain_conv(forward, spatial_dims=1, supports=SUPPORTS).parts["forward"].text
    assert "without padding between them: windows reach into the previous sample." in text


@pytest.mark.long
def test_channels_last_with_a_pitch_rounded_up():
    def backward(g, x, weight, *integers):
        grad_x, grad_weight, grad_bias = Conv().backward(g, x, weight, *integers)
        pitch, flat = -(-len(grad_bias) // 4) * 4, np.moveaxis(g, 1, -1).reshape(-1)
        sums = [flat[k::pitch].sum() for k in range(len(grad_bias))]
        return grad_x, grad_weight, np.array(sums, g.dtype)

    (failure,) = check_conv(Conv().forward, backward).failures
    assert "g is summed as if channels were last, and rounded up from" in failure.explanation


# --- Factors and biases by place -------------------------------------------------------------------------------------


def row_twice(grad, x, weight, grad_output, integers):
    return grad + grad_output[:, :, 1:2].sum((0, 2, 3))


def every_place_its_own(grad, x, weight, grad_output, integers):
    factors = 1 + np.arange(grad_output[0, 0].size).reshape(grad_output.shape[2:]) % 4
    return (grad_output * factors).sum((0, 2, 3))


def test_factors_of_g_are_said_by_place():
    text = gradient_text("grad_bias", row_twice)
    assert text == "Elements of g are multiplied by 2 at position 1 along axis 0; elsewhere by 1."
    text = gradient_text("grad_bias", every_place_its_own)
    assert "with the positions in memory order, by 1, 2, 3, 4, 1, 2, 3, 4" in text


def test_a_bias_by_the_number_of_the_output():
    def change(conv, x, w, b, i):
        y = conv(x, w, None, *i)
        return y + b[np.arange(y.size) % len(b)].reshape(y.shape)

    assert "Output number i, in memory order, gets bias[i mod 4]: as with channels last." in forward_text(change)


def test_positions_added_twice_are_all_listed():
    def change(grad, x, weight, grad_output, integers):
        late = grad_output.copy()
        late.reshape(*late.shape[:2], -1)[:, :, :8] = 0
        return grad + Conv().backward(late, x, weight, *integers)[1]

    text = gradient_text("grad_weight", change)
    listed = "(2, 2), (3, 0), (3, 1), (3, 2), (4, 0), (4, 1), (4, 2)"
    assert text == f"Products of positions {listed} are added twice."


def test_a_factor_that_is_a_product_of_strides_is_named():
    text = gradient_text("grad_bias", lambda grad, x, weight, g, integers: grad * np.prod(integers[0]))
    assert "multiplied by 16, which is ∏s (∏s = 16 as the product of the strides)" in text


# --- Gradients that use another array --------------------------------------------------------------------------------


def test_a_gradient_masked_by_its_own_operand():
    text = gradient_text("grad_weight", lambda grad, x, weight, g, integers: grad * (np.abs(weight) <= 1))
    assert "multiplied by 0 where that of the weight is −3, −2, 2, 3; the others are right." in text


def test_a_gradient_of_an_operand_already_updated():
    def backward(g, x, weight, *integers):
        _, grad_weight, grad_bias = Conv().backward(g, x, weight, *integers)
        grad_x, *_ = Conv().backward(g, x, weight - 0.01 * grad_weight, *integers)
        return grad_x, grad_weight, grad_bias

    text = explain_conv(Conv().forward, backward, supports=SUPPORTS).parts["grad_x"].text
    assert text == "grad_x is right, but computed from w − 0.01·grad_weight instead of w."


def test_a_gradient_of_the_buffer_of_another():
    def backward(g, x, weight, *integers):
        grad_x, _, grad_bias = Conv().backward(g, x, weight, *integers)
        return grad_x, Conv().backward(g, grad_x, weight, *integers)[1], grad_bias

    text = explain_conv(Conv().forward, backward, supports=SUPPORTS).parts["grad_weight"].text
    assert text == "grad_weight is right, but computed from grad_x instead of x."

    def padded(g, x, weight, stride, padding, dilation, groups):
        grad_x, _, grad_bias = Conv().backward(g, x, weight, stride, padding, dilation, groups)
        larger = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
        buffer = Conv().backward(g, larger, weight, stride, (0, 0), dilation, groups)[0]
        return grad_x, Conv().backward(g, buffer, weight, stride, (0, 0), dilation, groups)[1], grad_bias

    text = explain_conv(Conv().forward, padded, supports=SUPPORTS).parts["grad_weight"].text
    assert text == "grad_weight is right, but computed from the gradient of the padded x instead of the padded x."


# --- Fast algorithms in gradients ------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_adjoint_of_winograd_s_filtering_without_its_halves():
    """The middle rows of G doubled: the points 1 and −1 count twice, on each axis."""
    points = np.array([[1, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 1]]) * [[1], [0.5], [0.5], [1]]
    a = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])
    b = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
    wrong = points * [[1], [2], [2], [1]]

    def backward(g, x, weight, stride, padding, dilation, groups):
        grad_x, grad_weight, grad_bias = Conv().backward(g, x, weight, stride, padding, dilation, groups)
        if (weight.shape[2:], stride, dilation) == ((3, 3), (1, 1), (1, 1)):
            rows, columns = (-(-n // 2) * 2 for n in g.shape[2:])
            g = np.pad(g, [(0, 0), (0, 0), (0, rows - g.shape[2]), (0, columns - g.shape[3])])
            x = np.pad(x, [(0, 0), (0, 0), *((p, p + 2) for p in padding)])
            each, count, grad_weight = len(weight) // groups, weight.shape[1], np.zeros_like(weight)
            for k, c, i, j in np.ndindex(*weight.shape[:2], rows // 2, columns // 2):
                tile = x[:, k // each * count + c, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4]
                there = g[:, k, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
                grad_weight[k, c] += (wrong.T @ ((b @ tile @ b.T) * (a.T @ there @ a)) @ wrong).sum(0)
        return grad_x, grad_weight, grad_bias

    (failure,) = check_conv(Conv().forward, backward).failures
    assert "It is the adjoint of Winograd's F(2×2, 3×3)" in failure.explanation
    assert "the middle rows of G lack their factor 1/2" in failure.explanation


@pytest.mark.long
def test_winograd_s_filtering_along_one_axis():
    """With the last sign of Aᵀ wrong, odd columns have the kernel (w₀ + 2·w₂, w₁, −w₂) along the last axis."""

    def forward(x, weight, bias, stride, padding, dilation, groups):
        y = Conv().forward(x, weight, bias, stride, padding, dilation, groups)
        if (weight.shape[3], stride[1], dilation[1]) == (3, 1, 1):
            turned = np.array([[1, 0, 2], [0, 1, 0], [0, 0, -1]], x.dtype)
            other = np.einsum("ij,kcaj->kcai", turned, weight)
            y[..., 1::2] = Conv().forward(x, other, bias, stride, padding, dilation, groups)[..., 1::2]
        return y

    (failure,) = check_conv(forward).failures
    assert "Winograd's F(2, 3) along axis 1" in failure.explanation
    assert "entry (1, 3) of Aᵀ has the wrong sign" in failure.explanation


def test_a_gradient_from_a_real_transform_inverted_without_its_length():
    def backward(g, x, weight, stride, padding, dilation, groups):
        _, grad_weight, grad_bias = Conv().backward(g, x, weight, stride, padding, dilation, groups)
        larger = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
        whole = Conv().backward(g, larger, weight, stride, (0, 0), dilation, groups)[0]
        short = np.fft.irfft(np.fft.rfft(whole))
        whole = np.pad(short, [(0, 0)] * 3 + [(0, whole.shape[3] - short.shape[3])])
        (p, q), (rows, columns) = padding, x.shape[2:]
        return whole[:, :, p : p + rows, q : q + columns].astype(x.dtype), grad_weight, grad_bias

    text = explain_conv(Conv().forward, backward, supports=SUPPORTS).parts["grad_x"].text
    assert "real Fourier transform of the odd length 25, whose inverse is taken without that length" in text


@pytest.mark.long
def test_the_phases_of_a_transposed_convolution_exchanged():
    def forward(x, weight, bias, stride, padding, dilation, groups):
        y = ConvTranspose().forward(x, weight, None, stride, (0, 0), dilation, groups)
        (s, r), (h, w) = stride, y.shape[2:]
        if s == r:
            rows, columns = -(-h // s) * s, -(-w // s) * s
            y = np.pad(y, [(0, 0), (0, 0), (0, rows - h), (0, columns - w)])
            y = y.reshape(*y.shape[:2], rows // s, s, columns // s, s).transpose(0, 1, 2, 5, 4, 3)
            y = y.reshape(*y.shape[:2], rows, columns)[:, :, :h, :w]
        y = y[:, :, padding[0] : h - padding[0], padding[1] : w - padding[1]]
        return y if bias is None else y + bias[:, None, None]

    (failure,) = check_conv(forward, transposed=True).failures
    assert "one image for each phase (a, b) of the strides, with a and b exchanged" in failure.explanation


# --- Digits ----------------------------------------------------------------------------------------------------------


@pytest.mark.thinned(2)
@pytest.mark.parametrize("step", [1 / 16, 1 / 4])
def test_fixed_point_is_not_taken_for_float16(step):
    def backward(g, x, weight, *integers):
        grad_x, grad_weight, _ = Conv().backward(g, x, weight, *integers)
        return grad_x, grad_weight, (np.trunc(g / step) * step).sum((0, 2, 3))

    (failure,) = check_conv(Conv().forward, backward).failures
    assert "fixed point" in failure.explanation
    assert "float16" not in failure.explanation


def test_numbers_that_differ_are_shown_with_enough_digits():
    one, other = np.array([24.0000019]), np.array([23.9999962])
    assert differ(one, other) == ((0,), "24.0000019", "23.9999962")
    assert differ(np.array([1.5]), np.array([2.5])) == ((0,), "1.5", "2.5")


# --- Causes that look the same on one problem ------------------------------------------------------------------------


def test_a_last_row_left_out_is_not_taken_for_the_end_of_a_block():
    """On the standard problem 23 elements are left out; the 24th, where a block of 32 would begin, is never read."""

    def change(grad, *_):
        grad[:, :, -1:] = 0
        return grad

    assert gradient_text("grad_x", change) == "Along axis 0, element 7 of grad_x gets no product."


def test_two_blocks_that_overlap_are_not_taken_for_a_last_block_that_repeats():
    backward = Conv().backward

    def halves(grad_output, x, weight, *integers):
        grads, n = backward(grad_output, x, weight, *integers), len(x)
        again = backward(grad_output[n // 2 : -(-n // 2)], x[n // 2 : -(-n // 2)], weight, *integers)
        return grads[0], grads[1] + again[1], grads[2]

    text = explain_conv(Conv().forward, halves, supports=SUPPORTS).parts["grad_weight"].text
    assert text == "Of 3 samples, number 1 is added twice: two blocks of 2 overlap."


def test_displaced_elements_are_counted_as_far_as_they_are_read():
    """A kernel column that reads only padding shows nothing."""
    size = {"batch": 2, "c_in": 3, "c_out": 9, "size": (10, 5), "kernel": (2, 3), "stride": (3, 3), "dilation": (3, 2)}

    def exchanged(x, weight, bias, *integers):
        order = [3 * (k % 3) + k // 3 for k in range(len(weight))] if len(weight) == 9 else slice(None)
        return Conv().forward(x, weight[order], bias, *integers)

    problem = Problem(**size, padding=((0, 0), (1, 1)), groups=3, bias=False)
    with Caller(60.0) as call:
        text = explain(call, exchanged, None, problem, "float64", SUPPORTS).parts["forward"].text
    assert text.startswith("At least 24 of 54 elements of w are in the wrong place: w[1,:,:,:] and w[3,:,:,:]")
