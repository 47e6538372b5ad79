"""Checks of exercises, as the notebooks use them.

``checks`` puts a piece of a convolution that a learner wrote among right pieces and gives the whole to `check_conv`;
``logarithmic_sizes`` has the rule for logarithmic channel groups and the mistakes people make with it.
"""

from refconv.testing.exercises.checks import (
    SizesVerdict,
    Verdict,
    check_answer,
    check_backward,
    check_col2im,
    check_forward,
    check_im2col,
    check_input_grad,
    check_logarithmic_sizes,
    check_out_size,
    must_pass,
)

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
