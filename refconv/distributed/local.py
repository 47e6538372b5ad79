"""What each worker process of a cluster on this machine does when it starts: Dask imports this module there."""

from __future__ import annotations

import signal
import warnings
from typing import Any

from refconv.nn.malloc import keep_memory


def dask_setup(worker: Any) -> None:
    """Ignore Ctrl-C on the terminal, which the process that started the worker receives too, and which then ends it.

    Dask calls this function. The memory of freed arrays is kept for the next step.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore", RuntimeWarning)  # overflow in a training that diverges, which is an error
    keep_memory()
