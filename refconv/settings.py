"""How calls compute: by which engine, with how many CPU threads, in how much scratch memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from refconv.integers import as_int, shown

ENGINES = ("textbook", "fast")
"""Names that :func:`set_engine` accepts."""

DEFAULT_WORKSPACE = 64 * 2**20
"""Scratch bytes of one call unless :func:`set_workspace` says otherwise."""

GPU_WORKSPACE = 2**30
"""The same for arrays on a GPU, where starting an operation takes time."""

_engine: ContextVar[str | None] = ContextVar("refconv_engine", default=None)
_workers: ContextVar[int | None] = ContextVar("refconv_workers", default=None)
workspace: ContextVar[int] = ContextVar("refconv_workspace", default=DEFAULT_WORKSPACE)


def engine() -> str:
    """Return the current engine: "textbook" or "fast"."""
    return _engine.get() or _checked(os.environ.get("REFCONV_ENGINE") or "fast", "REFCONV_ENGINE")


def workers() -> int:
    """Return how many CPU threads a call may use."""
    return _workers.get() or cores()


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _checked(name: str, source: str) -> str:
    if name not in ENGINES:
        raise ValueError(f"{source} must be one of {', '.join(ENGINES)}; got {shown(name)}")
    return name


@contextlib.contextmanager
def _setting(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    """Set a variable inside a ``with`` block, for the current thread or asynchronous task."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def set_engine(name: str | None) -> contextlib.AbstractContextManager[None]:
    """Return a context manager inside which NumPy arrays are computed by the engine called `name`.

    Other array modules always run the textbook. Both engines compute the same sums: on whole numbers they agree bit
    for bit, on real numbers within the rounding of a sum in another order.

    Parameters
    ----------
    name : {"textbook", "fast"} or None
        "textbook" is ``refconv/textbook.py``, the whole idea on one page; it leaves threads to NumPy's own matrix
        product. "fast" is the CPU engine, ``refconv/cpu/``. None reads the environment variable ``REFCONV_ENGINE``,
        as calls outside the block do; the default is "fast".

    Raises
    ------
    ValueError, TypeError
        If there is no engine of that name.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv import conv, set_engine
    >>> with set_engine("textbook"):
    ...     conv(np.array([[[1, 2, 3]]]), np.array([[[1, 10]]]))
    array([[[21, 32]]])
    """
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a string, one of {', '.join(ENGINES)}, or None; got {shown(name)}")
    return _setting(_engine, name if name is None else _checked(name, "name"))


def set_workers(n: int) -> contextlib.AbstractContextManager[None]:
    """Return a context manager inside which calls of the fast engine use at most `n` CPU threads (default: all cores).

    The result has the same bits for every `n`. A call that is a single tile runs in the calling thread. The textbook,
    and so every module other than NumPy, leaves threads to the array module.

    Parameters
    ----------
    n : int
        Threads, at least 1.

    Raises
    ------
    ValueError, TypeError
        If `n` is not a positive integer.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv import conv, set_workers
    >>> with set_workers(1):
    ...     y = conv(np.ones((1, 2, 5)), np.ones((3, 2, 2)))
    """
    return _setting(_workers, as_int(n, "n", 1))


def set_workspace(bytes: int) -> contextlib.AbstractContextManager[None]:  # noqa: A002  (what the argument is)
    """Return a context manager inside which a call aims to use at most `bytes` of scratch memory.

    Default: 64 MiB, and 1 GiB for arrays on a GPU, where fewer and larger operations cost less.

    The budget covers everything a call needs beyond its arguments, its result and copies of the weight, over all its
    threads.

    A border of more than one reflection or wrap, or an `output_dtype` other than the operands' data type, needs one
    more copy of the operands concerned.

    The textbook cuts the batch to fit the budget; a single sample may exceed it. On whole numbers every budget gives
    the same result. On real numbers it may change the last bits: a weight gradient is then summed in another order, and
    BLAS may sum products of another size differently.

    The fast engine also cuts groups and rows. Its result has the same bits for every budget, because sums are cut by
    shape alone, into tiles of at most 4 MiB (8 for many small groups or small images). One such tile can exceed a
    smaller budget, and a single row of outputs with large windows can exceed a tile. Two kinds of call can exceed both:

    * the input gradient of a padding mode other than zeros, which takes whole channels, or of groups that share input
      channels, which takes whole samples;
    * the gradient of a weight of up to 4 MiB, because several partial sums of it exist until the last one is added.

    Parameters
    ----------
    bytes : int
        Bytes, at least 1.

    Raises
    ------
    ValueError, TypeError
        If `bytes` is not a positive integer.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv import conv, set_workspace
    >>> with set_workspace(2**20):
    ...     y = conv(np.ones((1, 2, 5)), np.ones((3, 2, 2)))
    """
    return _setting(workspace, as_int(bytes, "bytes", 1))
