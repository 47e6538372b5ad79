"""The networks that can be trained by name, with their options, image size and usual recipe."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from refconv.arrays import Namespace
from refconv.integers import shown
from refconv.nn import Layer, Recipe, alexnet, lenet5, residual_network


@dataclass(frozen=True)
class Trainable:
    """A network that can be trained by name.

    Attributes
    ----------
    build : callable
        Builds the network: ``build(groups, c_in=…, classes=…, side=…, rng=…, dropout_rng=…, xp=…, **options)``.
    groups : str
        Default channel groups: see :func:`refconv.cost.parse_groups`.
    options : dict
        Defaults of the other options: arguments of `build`.
    side : int or None
        Height and width of the images; None means the size in the data set.
    recipe : Recipe
        Default settings of its training.
    """

    build: Callable[..., Layer]
    groups: str
    options: dict[str, Any]
    side: int | None
    recipe: Recipe


def _residual(groups: str, *, dropout_rng: np.random.Generator, **arguments: Any) -> Layer:
    return residual_network(groups, **arguments)


def _lenet5(groups: str, *, dropout_rng: np.random.Generator, **arguments: Any) -> Layer:
    return lenet5(groups, **arguments)


def _defaults(build: Callable[..., Layer], *options: str) -> dict[str, Any]:
    return {option: inspect.signature(build).parameters[option].default for option in options}


TRAINABLE = {
    "residual": Trainable(_residual, "log:3", _defaults(residual_network, "channels", "blocks"), None, Recipe()),
    "lenet5": Trainable(_lenet5, "table", {}, 32, Recipe(epochs=10, batch_size=16, schedule="cosine", shift=2)),
    "alexnet": Trainable(
        alexnet,
        "2",
        _defaults(alexnet, "width"),
        224,
        # The paper's, which does not state when the rate fell.
        Recipe(epochs=90, batch_size=128, lr=0.01, schedule="steps:0.33,0.67,0.89"),
    ),
}
"""Every network by name."""


def find_model(name: str) -> Trainable:
    """Return a network of `TRAINABLE` by name.

    Raises
    ------
    ValueError
        If no network has that name.
    """
    if name not in TRAINABLE:
        raise ValueError(f"model must be one of {', '.join(TRAINABLE)}; got {shown(name)}")
    return TRAINABLE[name]


def build_model(
    name: str,
    groups: str,
    options: dict[str, Any],
    *,
    c_in: int,
    classes: int,
    side: int,
    rng: np.random.Generator,
    dropout_rng: np.random.Generator,
    xp: Namespace,
) -> Layer:
    """Return a network of `TRAINABLE`, new and untrained.

    Parameters
    ----------
    name : str
        A key of `TRAINABLE`.
    groups : str
        See :func:`refconv.cost.parse_groups`.
    options : dict
        Some of the model's options.
    c_in, classes, side : int
        Channels, number of classes, and side of the images.
    rng, dropout_rng : numpy.random.Generator
        Draw the initial weights, and the dropped elements in training.
    xp : module
        Array module of its parameters.

    Raises
    ------
    ValueError, TypeError
        If the groups or an option do not fit the network.
    """
    model = find_model(name)
    if unknown := [option for option in options if option not in model.options]:
        known = f"it has {', '.join(model.options)}" if model.options else "it has none"
        raise ValueError(f"model {name} has no option {unknown[0]}; {known}")
    return model.build(
        groups, c_in=c_in, classes=classes, side=side, rng=rng, dropout_rng=dropout_rng, xp=xp, **options
    )
