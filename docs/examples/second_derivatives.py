# ruff: noqa: T201
"""Second derivatives: the gradient of a gradient penalty, and a Hessian-vector product, both checked by differences.

Run it: ``python docs/examples/second_derivatives.py``. The digits come with scikit-learn.
"""

import sys

import numpy as np

from refconv import conv, conv_double_backward, conv_input_grad, conv_jvp, conv_weight_grad
from refconv.nn import load_digits_split

# --- A gradient penalty ----------------------------------------------------------------------------------------------


def backpropagate(w, x, readout, labels):
    """Return ∂loss/∂x of a small network, and what the way back needs. The loss is a sum of cross-entropies."""
    a = np.tanh(conv(x, w, padding="same"))
    z = a.reshape(len(x), -1) @ readout
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    grad_z = p - np.eye(p.shape[1])[labels]
    grad_a = (grad_z @ readout.T).reshape(a.shape)
    grad_h = grad_a * (1 - a**2)
    return conv_input_grad(grad_h, w, x.shape, padding="same"), (a, p, grad_a, grad_h)


def penalty(w, x, readout, labels):
    """Return ‖∂loss/∂x‖²."""
    return np.sum(backpropagate(w, x, readout, labels)[0] ** 2)


def penalty_grad(w, x, readout, labels):
    """Return the gradient of the penalty with respect to w: the lines of `backpropagate`, last line first."""
    grad_x, (a, p, grad_a, grad_h) = backpropagate(w, x, readout, labels)
    twice = conv_double_backward((2 * grad_x, None, None), grad_h, x, w, padding="same")
    of_grad_a = twice.grad_output * (1 - a**2)
    of_grad_z = of_grad_a.reshape(len(x), -1) @ readout
    of_z = p * (of_grad_z - np.sum(p * of_grad_z, axis=1, keepdims=True))
    of_a = (of_z @ readout.T).reshape(a.shape) - 2 * a * grad_a * twice.grad_output
    return twice.weight + conv_weight_grad(of_a * (1 - a**2), x, w.shape[2:], padding="same")


def central_differences(f, w, step):
    """Return (f(w + step) − f(w − step)) / (2·step) for each element of w."""
    steps = step * np.eye(w.size).reshape(w.size, *w.shape)
    return np.array([f(w + h) - f(w - h) for h in steps]).reshape(w.shape) / (2 * step)


# --- A Hessian-vector product ----------------------------------------------------------------------------------------

OPTIONS = {"groups": 2, "stride": (2, 1), "dilation": (1, 2), "padding": "same"}


def gradient(w, x):
    """Return the gradient of f(w) = ½‖conv(x, w)‖². The gradient with respect to the output is the output."""
    return conv_weight_grad(conv(x, w, **OPTIONS), x, w.shape[2:], **OPTIONS)


def forward_over_reverse(w, x, v):
    """Return H·v, the derivative of `gradient` along v."""
    return conv_weight_grad(conv_jvp(x, w, dweight=v, **OPTIONS), x, w.shape[2:], **OPTIONS)


def reverse_over_reverse(w, x, v):
    """Return H·v, the gradient of ⟨v, gradient(w)⟩."""
    twice = conv_double_backward((None, v, None), conv(x, w, **OPTIONS), x, w, **OPTIONS)
    return twice.weight + conv_weight_grad(twice.grad_output, x, w.shape[2:], **OPTIONS)


# --- Both checked ----------------------------------------------------------------------------------------------------


def check_penalty():
    """Compare with central differences, in float64."""
    rng = np.random.default_rng(0)
    digits = load_digits_split()
    x, labels = digits.train_images[:32].astype("float64"), digits.train_labels[:32]
    w, readout = rng.normal(0, 0.3, (4, 1, 3, 3)), rng.normal(0, 0.1, (4 * 8 * 8, 10))
    found = penalty_grad(w, x, readout, labels)
    expected = central_differences(lambda w: penalty(w, x, readout, labels), w, 1e-5)
    print(f"‖∂loss/∂x‖² of {len(x)} digits: {penalty(w, x, readout, labels):.4f}")
    for name, gradient_of_w in (("conv_double_backward", found), ("central differences", expected)):
        print(f"  its gradient by {name + ':':21}", *(f"{number:8.4f}" for number in gradient_of_w[0, 0, 0]), "…")
    agree = np.max(np.abs(found - expected)) < 1e-7 * np.max(np.abs(found))
    print(f"  all {w.size} elements agree to 7 digits: {agree}")
    return agree


def check_hessian():
    """Compare with a difference of step 1, on whole numbers: f is quadratic, so its gradient is linear."""
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, (2, 4, 9, 8)) * 1.0
    w, v = (rng.integers(-3, 4, (6, 2, 3, 2)) * 1.0 for _ in range(2))
    expected = gradient(w + v, x) - gradient(w, x)
    print(f"H·v of ½‖conv(x, w)‖², first elements: {' '.join(f'{number:.0f}' for number in expected.flat[:6])} …")
    equal = [np.array_equal(product(w, x, v), expected) for product in (forward_over_reverse, reverse_over_reverse)]
    print(f"  forward over reverse equals the difference of gradients bit for bit: {equal[0]}")
    print(f"  reverse over reverse equals the difference of gradients bit for bit: {equal[1]}")
    return all(equal)


if __name__ == "__main__":
    passed = [check_penalty(), check_hessian()]
    sys.exit(not all(passed))
