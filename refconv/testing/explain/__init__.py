"""What a convolution computes, found out by calling it.

``problems`` chooses a small problem, and ``session`` calls the functions on it. ``readout`` finds the products that a
function adds up, ``table`` arranges them by position, tap and image element, and ``fit`` fits strides, dilations,
paddings, channels and factors to them. ``describe`` chooses the description that accounts for the whole table,
``words`` says it in sentences, and ``bias`` does all this for the bias. ``explain`` puts the steps together into a
``report``.
"""

from refconv.testing.explain.explain import explain, explain_conv
from refconv.testing.explain.problems import standard_problem
from refconv.testing.explain.report import Explanation, Part

__all__ = ["Explanation", "Part", "explain", "explain_conv", "standard_problem"]
