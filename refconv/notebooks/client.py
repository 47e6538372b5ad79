"""A client of Jupyter kernels that misses no reply while sliders are at work.

What a slider draws, nbclient sends back to the kernel through the socket on which it awaits the reply to the cell.
Sending takes away the note that a reply has come meanwhile (ZMQ_FD is edge-triggered: after a send, one must look
again), and nobody would look until the cell's time was over.
"""

from __future__ import annotations

from queue import Empty
from time import monotonic
from typing import Any

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.channels import AsyncZMQSocketChannel
from traitlets import Type

EVERY = 0.5
"""Seconds after which to look again."""


class Channel(AsyncZMQSocketChannel):
    """A channel that looks again and again for a message, whether or not it was told of one."""

    async def get_msg(self, timeout: float | None = None) -> Any:  # type: ignore[override]  # as its parent's own
        """Return the next message; raise `queue.Empty` if none comes within so many seconds."""
        until = None if timeout is None else monotonic() + timeout
        while True:
            left = EVERY if until is None else min(EVERY, until - monotonic())
            try:
                return await super().get_msg(max(0.0, left))
            except Empty:
                if until is not None and monotonic() >= until:
                    raise


class Client(AsyncKernelClient):
    """A client whose shell channel is such a one."""

    shell_channel_class = Type(Channel)
