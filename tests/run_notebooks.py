"""Run the open notebooks and keep their outputs: ``python -m tests.run_notebooks [NAME]…``, or ``make notebooks``.

The tests run notebooks with the same functions, and compare the printed and drawn outputs with the saved ones.
"""

from __future__ import annotations

import base64
import io
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import Empty
from time import monotonic
from typing import Any

import nbformat
import numpy as np
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.channels import AsyncZMQSocketChannel
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat import NotebookNode
from PIL import Image
from traitlets import Type
from traitlets.config import Config

from refconv.files import replacing
from refconv.notebooks import SECONDS, TITLES, NotebookError, build, folder, to_json

SLIDERS = "(Sliders: they appear when this cell is run.)"

_GUARD = """
import socket as _socket, warnings as _warnings
def _refuse(self, address, _connect=_socket.socket.connect):
    if self.family != getattr(_socket, "AF_UNIX", None) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError(f"a notebook must not use the network; it tried to reach {address}")
    return _connect(self, address)
_socket.socket.connect = _refuse
_warnings.simplefilter("error")
_warnings.simplefilter("ignore", PendingDeprecationWarning)  # of the kernel, when it shuts down
"""


# --- Running ---------------------------------------------------------------------------------------------------------


EVERY = 0.5
"""Seconds between two looks for a message."""


class Channel(AsyncZMQSocketChannel):
    """A channel that polls for messages, so that it misses no reply while sliders are active.

    nbclient sends the pictures of a slider back to the kernel through the socket on which it awaits the reply to the
    cell. Sending clears the notification of a reply that has arrived meanwhile (ZMQ_FD is edge-triggered, so messages
    must be read again after a send). Without polling, the reply would not be read before the cell's time limit.
    """

    async def get_msg(self, timeout: float | None = None) -> Any:
        """Return the next message; raise `queue.Empty` if none arrives within `timeout` seconds."""
        until = None if timeout is None else monotonic() + timeout
        while True:
            left = EVERY if until is None else min(EVERY, until - monotonic())
            try:
                return await super().get_msg(max(0.0, left))
            except Empty:
                if until is not None and monotonic() >= until:
                    raise


class Client(AsyncKernelClient):
    """A client with such a shell channel."""

    shell_channel_class = Type(Channel)


def execute(notebook: NotebookNode, *, backend: str = "numpy", limit: float = 60) -> float:
    """Run a notebook in place, from top to bottom, and return the time in seconds, at most `limit`.

    Network access and warnings are errors. The pictures of sliders are left out, because they need a running kernel.

    Raises
    ------
    NotebookError
        If a cell raises an exception or writes to standard error, or the notebook takes too long.
    """
    guard = nbformat.v4.new_code_cell(_GUARD)
    notebook.cells.insert(0, guard)
    start = time.perf_counter()
    try:
        _run(notebook, backend, limit)
    except (CellExecutionError, CellTimeoutError) as error:
        raise NotebookError(str(error)) from error
    seconds = time.perf_counter() - start
    notebook.cells.remove(guard)
    _refuse_errors_of_sliders(notebook.metadata.pop("widgets", {}))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count -= 1
            cell.outputs = list(_tidied(cell))
    if seconds > limit:
        raise NotebookError(f"the notebook takes {seconds:.0f} s; it may take {limit:g} s")
    return seconds


def _run(notebook: NotebookNode, backend: str, limit: float) -> None:
    paths = [str(Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONPATH": os.pathsep.join(paths),
        "REFCONV_BACKEND": backend,
    }
    # Kernels that start simultaneously could take the same TCP port, but not the same files in separate folders.
    with tempfile.TemporaryDirectory(prefix="refconv-") as sockets:
        channels = {} if os.name == "nt" else {"transport": "ipc", "ip": str(Path(sockets) / "kernel")}
        client = NotebookClient(
            notebook,
            timeout=math.ceil(limit),
            iopub_timeout=10,
            raise_on_iopub_timeout=True,  # instead of continuing without the output
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,  # a stream is cut into pieces at random
            extra_arguments=["--Application.log_level=50"],
            config=Config({"KernelManager": {**channels, "client_factory": Client}}),
        )
        client.execute(env=environment)


def _refuse_errors_of_sliders(widgets: dict[str, Any]) -> None:
    """Raise NotebookError if the function behind sliders failed: it only writes the error into their output."""
    for kind in widgets.values():
        for widget in kind["state"].values():
            for output in widget["state"].get("outputs", []):
                if output["output_type"] == "error":
                    raise NotebookError(f"behind sliders: {output['ename']}: {output['evalue']}")


def _tidied(cell: NotebookNode) -> Iterator[NotebookNode]:
    for output in cell.outputs:
        if output.output_type == "stream" and output.name == "stderr":
            raise NotebookError(f"a cell writes to standard error:\n{cell.source}\n{output.text}")
        if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
            output.data = {"text/plain": SLIDERS}
        if "alt" in cell.metadata and "image/png" in output.get("data", {}):
            output.metadata["image/png"] = {"alt": cell.metadata["alt"]}
        if "execution_count" in output:
            output.execution_count = cell.execution_count
        yield output


def checks(notebook: NotebookNode) -> list[str]:
    """Return the output of the checks of a notebook's exercises, the cells tagged "check"."""
    tagged = [cell for cell in notebook.cells if "check" in cell.metadata.get("tags", [])]
    return ["".join(output.get("text", "") for output in cell.outputs) for cell in tagged]


# --- Comparing -------------------------------------------------------------------------------------------------------


def stale(kept: NotebookNode, fresh: NotebookNode) -> list[str]:
    """Return the differences between two runs of a notebook, none if the saved outputs are still right.

    Text must be equal. Pictures must have nearly the same size and look nearly alike, because the bytes of a picture
    depend on the versions of the libraries that draw it. A cell tagged "measured" must only have outputs of the same
    kinds, because they are measurements or depend on the installed packages.
    """
    found = []
    if [c.source for c in kept.cells] != [c.source for c in fresh.cells]:
        return ["the cells differ from the text"]
    for number, (old, new) in enumerate(zip(kept.cells, fresh.cells, strict=True), 1):
        if old.cell_type != new.cell_type or old.metadata != new.metadata:
            found.append(f"cell {number}: kind or tags differ")
        elif "measured" in old.metadata.get("tags", []):
            kinds = _kinds(old), _kinds(new)
            if not kinds[0] or kinds[0] != kinds[1]:
                found.append(f"cell {number}: kept {kinds[0]}, now {kinds[1]}")
        elif old.cell_type == "code":
            texts, pictures = (_texts(old), _texts(new)), (_pictures(old), _pictures(new))
            if texts[0] != texts[1]:
                found.append(f"cell {number}: kept {texts[0]!r}, now {texts[1]!r}")
            if len(pictures[0]) != len(pictures[1]) or not all(map(_alike, *pictures)):
                found.append(f"cell {number}: another picture")
    return found


def _kinds(cell: NotebookNode) -> list[str]:
    """Return the kinds of a code cell's outputs, "picture" or "text"."""
    return ["picture"] * bool(_pictures(cell)) + ["text"] * bool(_texts(cell))


def _texts(cell: NotebookNode) -> list[str]:
    """Return a code cell's outputs as texts, except the text of a picture, which contains a memory address."""
    shown = []
    for output in cell.outputs:
        data = output.get("data", {})
        if output.output_type == "stream":
            shown.append(str(output.text))
        elif not any(kind.startswith("image/") for kind in data):
            shown += [f"{kind}: {data[kind]}" for kind in sorted(data)]
    return shown


def _pictures(cell: NotebookNode) -> list[bytes]:
    return [
        base64.b64decode(text)
        for output in cell.outputs
        for kind, text in output.get("data", {}).items()
        if kind == "image/png"
    ]


def _alike(old: bytes, new: bytes) -> bool:
    images = [Image.open(io.BytesIO(data)) for data in (old, new)]
    if getattr(images[0], "n_frames", 1) != getattr(images[1], "n_frames", 1):
        return False
    if any(abs(a - b) > 0.03 * a + 2 for a, b in zip(images[0].size, images[1].size, strict=True)):
        return False
    for frame in range(getattr(images[0], "n_frames", 1)):
        small: list[Any] = []
        for image in images:
            image.seek(frame)
            small.append(np.asarray(image.convert("L").resize((96, 96)), dtype=float))
        if np.abs(small[0] - small[1]).mean() > 6:
            return False
    return True


def main(names: Sequence[str]) -> None:
    """Make the open notebooks of these names, or all, from their texts, run them and save their outputs."""
    for name in names or TITLES:
        notebook = build(name, solved=False)
        seconds = execute(notebook, limit=SECONDS[name])
        path = folder() / f"{name}.ipynb"
        with replacing(path) as partial:
            partial.write_text(to_json(notebook), "utf-8")
        print(f"{path.name}: {seconds:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
