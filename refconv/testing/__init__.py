"""The checking kit: oracles that share no code with the convolution they judge.

Importing this package imports NumPy and nothing heavier. It never imports the implementation.
"""

from refconv.testing.bounds import assert_conv_close, error_bound
from refconv.testing.cases import Case
from refconv.testing.check import check_conv
from refconv.testing.gradcheck import GradcheckResult, gradcheck
from refconv.testing.report import CheckReport, Diagnosis, Failure

__all__ = [
    "Case",
    "CheckReport",
    "Diagnosis",
    "Failure",
    "GradcheckResult",
    "assert_conv_close",
    "check_conv",
    "error_bound",
    "gradcheck",
]
