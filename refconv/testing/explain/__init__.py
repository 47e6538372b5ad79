"""What a convolution computes, found out by calling it.

``readout`` finds the products that a function adds up, ``table`` arranges them by position, tap and image element,
``fit`` fits strides, dilations, paddings, channels and factors to them, ``words`` says it in sentences, and ``explain``
puts these steps together. ``problems`` chooses the problem that is read out.
"""

from refconv.testing.explain.explain import Explanation, Part, explain, explain_conv
from refconv.testing.explain.problems import standard_problem

__all__ = ["Explanation", "Part", "explain", "explain_conv", "standard_problem"]
