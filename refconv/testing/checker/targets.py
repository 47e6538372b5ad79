"""Finding the functions that a command line names, and giving them arrays of another module."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from refconv.arrays import Namespace, to_numpy


class TargetError(Exception):
    """What was named cannot be checked; the message says why, on one line."""


def load(target: str) -> Callable[..., Any]:
    """Return the function that ``MODULE:FUNCTION`` or ``FILE.py:FUNCTION`` names.

    Modules are looked for in the current directory too. The function may lie in an object: ``MODULE:OBJECT.METHOD``.

    Raises
    ------
    TargetError
        If there is no such module or function, or the module cannot be imported.
    """
    module_name, colon, path = target.rpartition(":")
    if not (colon and module_name and path):
        raise TargetError(f"{target!r} must be MODULE:FUNCTION, or FILE.py:FUNCTION")
    found = _import(module_name)
    for name in path.split("."):
        if not hasattr(found, name):
            raise TargetError(f"{target!r}: {module_name} has no {path}")
        found = getattr(found, name)
    if not callable(found):
        raise TargetError(f"{target!r} is no function; it is of type {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def _import(name: str) -> Any:
    directory = str(Path.cwd())
    if directory not in sys.path:
        sys.path.insert(0, directory)
    try:
        if name.endswith(".py"):
            return _import_file(Path(name))
        return importlib.import_module(name)
    except TargetError:
        raise
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise TargetError(f"there is no module {name} here or among the installed packages") from error
        raise TargetError(f"importing {name} needs a module that is missing: {error.name}") from error
    except BaseException as error:  # someone else's module may raise anything while it is imported
        if isinstance(error, KeyboardInterrupt):
            raise
        text = " ".join(str(error).split())
        raise TargetError(f"importing {name} raised {type(error).__name__}: {text}".rstrip(": ")) from error


def _import_file(path: Path) -> Any:
    if not path.is_file():
        raise TargetError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise TargetError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses and pickles of the module look for it there
    spec.loader.exec_module(module)
    return module


def with_arrays_of(xp: Namespace, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that is given arrays of module `xp` where it is called with NumPy's, and returns NumPy's."""
    if xp is np:
        return function

    def given(value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        # Read-only memory and negative strides are NumPy's; other modules have neither.
        return xp.asarray(value if value.flags.writeable and value.flags.c_contiguous else value.copy())

    @functools.wraps(function)  # keeps the signature, which is checked
    def called(*arguments: Any, **options: Any) -> Any:
        result = function(*map(given, arguments), **options)
        return tuple(map(_returned, result)) if isinstance(result, tuple | list) else _returned(result)

    return called


def _returned(value: Any) -> Any:
    try:
        return to_numpy(value)
    except TypeError:  # the checker says what it thinks of it
        return value
