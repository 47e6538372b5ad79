"""The checking kit: oracles that share no arithmetic with the convolution under test.

Modules for everyone: ``strategies`` draws problems for Hypothesis, ``gradcheck`` checks any gradient by differences,
``mutants`` is the catalogue of wrong convolutions, and ``adapters`` wraps the convolutions of other libraries. The rest
is in six packages: ``oracles`` (right answers and bounds on rounding errors), ``checker`` (`check_conv`), ``explain``
(`explain_conv`), ``grader`` (``refconv check``: each submission in a separate process), ``vectors`` (test vectors for
any language) and ``exercises`` (the notebooks' checks).

Importing this package imports nothing heavier than NumPy. No module here imports the convolution; they share with it
only the validation of integers, channel groups and array modules.
"""

from refconv.testing.checker.cases import Case
from refconv.testing.checker.check import check_conv
from refconv.testing.checker.report import CheckReport, Diagnosis, Failure
from refconv.testing.explain.explain import explain_conv
from refconv.testing.explain.report import Explanation, Part
from refconv.testing.gradcheck import GradcheckResult, gradcheck
from refconv.testing.oracles.bounds import assert_conv_close, error_bound

__all__ = [
    "Case",
    "CheckReport",
    "Diagnosis",
    "Explanation",
    "Failure",
    "GradcheckResult",
    "Part",
    "assert_conv_close",
    "check_conv",
    "error_bound",
    "explain_conv",
    "gradcheck",
]
