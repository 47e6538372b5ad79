"""Checks of exercises, as the notebooks use them.

``checks`` puts a learner's piece of a convolution among right pieces and gives the whole to `check_conv`; ``slips``
names mistakes that are not in the catalogue of wrong convolutions; ``answers`` checks any other function;
``logarithmic_sizes`` has the rule for logarithmic channel groups and the mistakes that people make with it; ``verdict``
is what learners read.
"""

from refconv.testing.exercises.answers import check_answer
from refconv.testing.exercises.checks import (
    SizesVerdict,
    check_backward,
    check_col2im,
    check_forward,
    check_im2col,
    check_input_grad,
    check_logarithmic_sizes,
    check_out_size,
)
from refconv.testing.exercises.verdict import Verdict, must_pass

__all__ = [
    "SizesVerdict",
    "Verdict",
    "check_answer",
    "check_backward",
    "check_col2im",
    "check_forward",
    "check_im2col",
    "check_input_grad",
    "check_logarithmic_sizes",
    "check_out_size",
    "must_pass",
]
