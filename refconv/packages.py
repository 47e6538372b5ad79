"""Optional packages: whether they are installed, found out before any work."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping


class MissingPackagesError(ImportError):
    """Packages of an extra are missing; the message says what to install."""


def check_packages(what: str, extra: str, packages: Mapping[str, str]) -> None:
    """Check that packages are installed, without importing them.

    Parameters
    ----------
    what : str
        What needs them, with its verb: "the tour needs".
    extra : str
        The extra of refconv that contains them.
    packages : mapping of str to str
        Modules, and the packages that contain them.

    Raises
    ------
    MissingPackagesError
        If a module is missing.

    Examples
    --------
    >>> check_packages("the tour needs", "tour", {"no_such_module": "No Such Package"})
    Traceback (most recent call last):
        ...
    refconv.packages.MissingPackagesError: the tour needs No Such Package: pip install 'refconv[tour]'
    """
    missing = [package for module, package in packages.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise MissingPackagesError(f"{what} {', '.join(missing)}: pip install 'refconv[{extra}]'")
