"""Memory that one training step leaves for the next."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""What glibc's malloc.h calls M_TRIM_THRESHOLD and M_MMAP_MAX."""


def keep_memory() -> bool:
    """Let this process keep the memory of arrays that are freed, for the next ones.

    A training step makes arrays of the same sizes as the step before. By default glibc gives each large one back to the
    system when it is freed, so that every step has all its pages filled with zeros anew. Afterwards freed memory stays
    with the process until it ends: buffers are reused from step to step, at the price of what falls between them.

    It holds for the whole process and cannot be undone. So no function here calls it: ``refconv train`` does, and a
    program that trains may.

    Returns
    -------
    bool
        Whether the C library could be told: it must be glibc, so Linux. Elsewhere nothing happens.

    References
    ----------
    ``man 3 mallopt``.

    Examples
    --------
    >>> from refconv.nn import keep_memory
    >>> kept = keep_memory()
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (TypeError, OSError, AttributeError):  # Windows names libraries; other C libraries have no such function
        return False
    # No array in a mapping of its own, and the end of the heap never given back.
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))
