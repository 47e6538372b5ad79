"""What a convolution computes, found out by calling it.

``problems`` chooses a small problem, and ``session`` calls the functions on it. ``linearity`` tries whether a function
is linear at all, ``readout`` finds the products that it adds up, and ``table`` arranges them by position, tap and image
element. ``fit`` fits a line and its exceptions to each axis, and factors; ``rules`` has axes without a line,
``channels`` groups, rows and samples, ``layouts`` reshaped arrays, and ``causes`` the mistakes that give such numbers.
``blocks`` and ``addresses`` have mistakes of kernels, each as the whole table that it gives on any problem. A new rule
belongs in one of these six.

``describe`` chooses the description that accounts for the whole table, ``words`` says it in sentences with the
``names`` of the part, and ``bias`` does all this for the bias. A part that is not linear may be a function of the right
result (``pointwise``) or right for another operand (``replaced``); ``algorithms`` has mistakes of fast ones.
``explain`` puts the steps together into a ``report``.
"""

from refconv.testing.explain.explain import explain, explain_conv
from refconv.testing.explain.problems import standard_problem
from refconv.testing.explain.report import Explanation, Part

__all__ = ["Explanation", "Part", "explain", "explain_conv", "standard_problem"]
