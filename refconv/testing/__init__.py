"""The checking kit: oracles that share no code with the convolution they judge.

Importing this package imports NumPy and nothing heavier. It never imports the implementation.
"""

from refconv.testing.bounds import assert_conv_close, error_bound

__all__ = ["assert_conv_close", "error_bound"]
