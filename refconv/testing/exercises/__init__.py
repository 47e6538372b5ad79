"""Checks of the notebooks' exercises.

``checks`` combines a learner's piece of a convolution with right pieces and passes the whole to `check_conv`; ``slips``
names mistakes that are not in the catalogue of wrong convolutions; ``answers`` checks any other function;
``logarithmic_sizes`` contains the rule for logarithmic channel groups and common mistakes; ``verdict`` writes the
results for learners.
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
