"""A catalogue of wrong convolutions, so that a mistake can be called by its name.

`Conv` and `ConvTranspose` (in `correct`) are small correct implementations cut into pieces. Each mistake in `sizes`,
`windows`, `channels` and `calls` replaces one piece. Its name states the mistake, its docstring explains it in a
sentence, and its hint says how to fix it. The catalogue has two uses: :func:`refconv.testing.check_conv` must catch
every mistake, which shows that its checks work; and when a checked function is wrong, the checker names the mistakes
that give the same results.
"""

from __future__ import annotations

from refconv.testing.mutants import calls, channels, sizes, windows  # noqa: F401 (each enters its mistakes)
from refconv.testing.mutants.calls import rounded
from refconv.testing.mutants.correct import Conv, ConvTranspose, Steps, steps
from refconv.testing.mutants.registry import ENTERED, FAMILIES, Mutant

__all__ = ["CATALOGUE", "FAMILIES", "Conv", "ConvTranspose", "Mutant", "Steps", "rounded", "steps"]

CATALOGUE: tuple[Mutant, ...] = tuple(sorted(ENTERED, key=lambda mutant: FAMILIES.index(mutant.family)))
"""Every named mistake, family by family."""
