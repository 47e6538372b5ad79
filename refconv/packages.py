"""Check before any work that optional packages are installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping


class MissingPackagesError(ImportError):
    """Packages are missing; the message says what to install."""


def check_packages(what: str, packages: Mapping[str, str], *, extra: str = "") -> None:
    """Check that packages are installed, without importing them.

    Parameters
    ----------
    what : str
        Beginning of the message, such as "the tour needs".
    packages : mapping of str to str
        Names of modules, and pip's names of the packages that contain them.
    extra : str
        The extra of refconv that contains them, for the message.

    Raises
    ------
    MissingPackagesError
        If a module is missing.

    Examples
    --------
    >>> check_packages("the tour needs", {"no_such_module": "no-such-package"})
    Traceback (most recent call last):
        ...
    refconv.packages.MissingPackagesError: the tour needs no-such-package: pip install no-such-package
    """
    missing = [package for module, package in packages.items() if importlib.util.find_spec(module) is None]
    if missing:
        also = f", or the extra refconv[{extra}]" if extra else ""
        raise MissingPackagesError(f"{what} {', '.join(missing)}: pip install {' '.join(missing)}{also}")
