"""Grouped convolution to read, run and trust: forward and backward, on NumPy, CuPy and PyTorch arrays.

>>> import numpy as np
>>> import refconv
>>> x = np.ones((1, 4, 5, 5))
>>> weight = np.ones((6, 2, 3, 3))
>>> refconv.conv(x, weight, groups=2, padding=1).shape
(1, 6, 5, 5)
"""

import sys

if sys.argv[:1] == ["-m"] and "refconv" in [word.split(".")[0] for word in sys.orig_argv] and not sys.flags.safe_path:
    # python -m refconv searches the current folder first, where a student's numpy.py would replace NumPy.
    sys.path.append(sys.path.pop(0))

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refconv.arrays import BackendError, array_namespace, load_backend, to_numpy
    from refconv.conv import (
        ConvGrads,
        conv,
        conv1d,
        conv2d,
        conv3d,
        conv_backward,
        conv_input_grad,
        conv_output_shape,
        conv_transpose,
        conv_transpose1d,
        conv_transpose2d,
        conv_transpose3d,
        conv_transpose_backward,
        conv_weight_grad,
    )
    from refconv.derivatives import (
        ConvDoubleGrads,
        conv_double_backward,
        conv_jvp,
        conv_transpose_double_backward,
        conv_transpose_jvp,
    )
    from refconv.groups import ChannelGroups, depthwise_groups, lenet5_c3_groups, logarithmic_groups, uniform_groups
    from refconv.im2col import col2im, im2col
    from refconv.settings import set_engine, set_workers, set_workspace

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "ChannelGroups",
    "ConvDoubleGrads",
    "ConvGrads",
    "array_namespace",
    "col2im",
    "conv",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_backward",
    "conv_double_backward",
    "conv_input_grad",
    "conv_jvp",
    "conv_output_shape",
    "conv_transpose",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "conv_transpose_backward",
    "conv_transpose_double_backward",
    "conv_transpose_jvp",
    "conv_weight_grad",
    "depthwise_groups",
    "im2col",
    "lenet5_c3_groups",
    "load_backend",
    "logarithmic_groups",
    "set_engine",
    "set_workers",
    "set_workspace",
    "to_numpy",
    "uniform_groups",
]

_MODULES = ("settings", "groups", "arrays", "im2col", "conv", "derivatives")


class _Package(ModuleType):
    """The package itself; its public names are loaded when the first of them is used.

    A command can therefore print its help, or stop on Ctrl-C, without waiting for NumPy.
    """

    def __getattr__(self, name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        for module in _MODULES:
            found = vars(importlib.import_module(f"{self.__name__}.{module}"))
            self.__dict__.update({public: found[public] for public in __all__ if public in found})
        return self.__dict__[name]

    def __setattr__(self, name: str, value: object) -> None:
        """Ignore an import of refconv.conv or refconv.im2col, which would replace the function of that name."""
        if name not in __all__ or not isinstance(value, ModuleType):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
