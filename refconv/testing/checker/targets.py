"""Find the functions that a command line names, and give them arrays of another module."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from refconv.arrays import Namespace, to_numpy


class TargetError(Exception):
    """The named function cannot be checked; the message says why, on one line."""


class ImportFailedError(TargetError):
    """The module was found, but running it raised an exception."""


def split(target: str) -> tuple[str, str]:
    """Return the module, or file, and the function of ``MODULE:FUNCTION`` or ``FILE.py:FUNCTION``.

    Raises
    ------
    TargetError
        If one of the two is missing.

    Examples
    --------
    >>> split("layers/mine.py:Conv.forward")
    ('layers/mine.py', 'Conv.forward')
    """
    module, colon, function = target.rpartition(":")
    if not (colon and module and function):
        raise TargetError(f"{target!r} must be MODULE:FUNCTION, or FILE.py:FUNCTION")
    return module, function


def load(target: str) -> Callable[..., Any]:
    """Return the function that ``MODULE:FUNCTION`` or ``FILE.py:FUNCTION`` names.

    Modules are searched for on ``sys.path``, then in the current directory; a file's imports also in its own folder.
    Nothing there replaces a module of the standard library or an installed package. The function may be a method of an
    object: ``MODULE:OBJECT.METHOD``.

    Raises
    ------
    TargetError
        If there is no such module or function.
    ImportFailedError
        If importing the module raises an exception.
    """
    module, function = split(target)
    found = _import(module)
    for name in function.split("."):
        if not hasattr(found, name):
            raise TargetError(f"{target!r}: {module} has no {function}")
        found = getattr(found, name)
    if not callable(found):
        raise TargetError(f"{target!r} is not a function but of type {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def folder_of(target: str) -> Path:
    """Return the folder of a target's own files: the file's folder, or the current one for a module."""
    module, _ = split(target)
    return Path(module).resolve().parent if module.endswith(".py") else Path.cwd()


def hidden_by_installed(folder: Path, target: Path | None) -> list[str]:
    """Return the names of a folder's files, other than `target`, whose imports found an installed module instead."""
    found = []
    for path in sorted(folder.glob("*.py")):
        module = sys.modules.get(path.stem)
        if module is not None and path != target and not path.stem.startswith("__"):
            origin = getattr(module, "__file__", None)
            if origin is None or Path(origin).resolve() != path.resolve():
                found.append(path.name)
    return found


def _import(name: str) -> Any:
    try:
        if name.endswith(".py"):
            return _import_file(Path(name).resolve(), name)
        _search_last(Path.cwd())
        return importlib.import_module(name)
    except TargetError:
        raise
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise TargetError(f"there is no module {name} here or among the installed packages") from error
        raise ImportFailedError(f"importing {name} needs a module that is missing: {error.name}") from error
    except BaseException as error:  # someone else's module may raise anything while it is imported
        text = " ".join(str(error).split())
        message = f"importing {name} raised {type(error).__name__}: {text}".rstrip(": ")
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f"{f.filename}:{f.lineno}" for f in frames if f.filename != __file__ and f.filename[0] != "<"]
        raise ImportFailedError(message + (f" ({lines[-1]})" if lines else "")) from error


def _search_last(folder: Path) -> None:
    """Let imports search a folder after all others, so that it replaces no installed module."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


@functools.cache  # forward and backward share one module
def _import_file(path: Path, name: str) -> Any:
    """Import a file: as part of its package if its folder has an ``__init__.py``, otherwise as a module."""
    if not path.is_file():
        raise TargetError(f"there is no file {name}")
    _search_last(path.parent)
    _search_last(Path.cwd())
    package, folder = "", path.parent
    while (folder / "__init__.py").is_file():
        package, folder = f"{folder.name}.{package}", folder.parent
    if package:
        _search_last(folder)
        importlib.import_module(package[:-1])
    module_name = f"{package}{path.stem}"
    if _is_taken(module_name, path):  # by the standard library, for example: random.py
        module_name = f"submission_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise TargetError(f"{name} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pickles of the module look for it there
    spec.loader.exec_module(module)
    return module


def _is_taken(module_name: str, path: Path) -> bool:
    """Return whether importing a name finds a file other than `path`."""
    try:
        spec = importlib.util.find_spec(module_name)
    except (ImportError, ValueError):
        return True
    return spec is not None and spec.origin != str(path)


def with_arrays_of(xp: Namespace, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that takes and returns NumPy arrays, but passes arrays of module `xp` to the given one."""
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
    except TypeError:  # the checker judges it
        return value
