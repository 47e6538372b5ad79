"""A setting of glibc's malloc: memory is reused from one training step to the next."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""M_TRIM_THRESHOLD and M_MMAP_MAX of glibc's malloc.h."""


def keep_memory() -> bool:
    """Let this process keep the memory of freed arrays for later arrays.

    Each training step allocates arrays of the same sizes. By default glibc returns each large array to the system when
    it is freed, so in every step the system fills all its pages with zeros again. After this call, freed memory stays
    with the process until it ends. Buffers are reused from step to step, at the price of some fragmentation.

    The setting applies to the whole process and cannot be undone. So no function in this package calls it, except the
    command ``refconv train``; your own training program may call it too.

    Returns
    -------
    bool
        Whether the setting was made. It needs glibc, and so Linux; elsewhere nothing happens.

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
    except (TypeError, OSError, AttributeError):  # Windows needs a library name; other C libraries lack mallopt
        return False
    # No array gets its own mapping, and the end of the heap is never returned.
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))
