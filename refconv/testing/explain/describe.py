"""From a table of products to findings and sentences: as a whole by its factors if it has any, else by differences."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refconv.testing.explain import words
from refconv.testing.explain.addresses import address_models
from refconv.testing.explain.blocks import Model, block_models
from refconv.testing.explain.channels import (
    channel_models,
    channel_sentences,
    fit_channels,
    fit_samples,
    sample_sentences,
    told_by_sets,
)
from refconv.testing.explain.fit import (
    BORDERS,
    Axis,
    Factors,
    axes_of,
    fit_axes,
    fit_factors,
    flat_line,
    is_product,
)
from refconv.testing.explain.layouts import Layout, fit_layouts, moved
from refconv.testing.explain.names import Names, formula, listed, plural, ranges
from refconv.testing.explain.problems import shown
from refconv.testing.explain.readout import Entries
from refconv.testing.explain.rules import RULES
from refconv.testing.explain.session import Elsewhere, Second
from refconv.testing.explain.table import Asked, Shape, Table, combine, distinct, roles, row_set
from refconv.testing.oracles.definition import Array

Described = tuple[list[str], dict[str, Any]]
FEWEST_PLACES = 6
"""Positions, taps and elements that must meet for a mistake of addresses to show."""


@dataclass(frozen=True)
class Finding:
    """From a table to findings and sentences."""

    asked: Asked
    part: str
    names: Names
    table: Table
    right: Table
    second: Callable[[], Second | None] = lambda: None
    elsewhere: Callable[[], Iterator[Elsewhere]] = lambda: iter(())

    def found(self, unread: Array) -> dict[str, Any]:
        """Return the fields of a :class:`Part`, with "sentences" and "right"."""
        table, right = self.table, self.right
        factors = fit_factors(table)
        values = list(factors.values.values()) if factors.by == "" else []
        found: dict[str, Any] = {
            "missing": self.missing,
            "extra": self.extra,
            "factor": values[0] if values else None,
            "channels": self._reads(),
            "samples": fit_samples(row_set(table.samples), table.shapes["positions"][0]),
            "is_convolution": False,
        }
        same = not found["missing"] and not found["extra"] and not len(unread)
        found["right"] = same and values == [1]
        said = self._factors(factors)
        if not len(table.factor) and not len(unread):
            if not len(right.factor):
                return found | {"right": True, "sentences": []}
            return found | {"sentences": [words.ZERO]}
        ordered = self._layout if self.layout is not None and self.layout.order is not None else self._rows
        ways = (
            self._blocks, self._lines, self._addresses, self._product, ordered, self._box, self._rows, self._layout,
        )  # fmt: skip
        described = None if len(unread) else next(filter(None, (way() for way in ways)), None)
        if described is None:
            return found | {"sentences": [*words.number_sentences(table, right, self.names, unread), *said]}
        sentences, fields = described
        fields["is_convolution"] = bool(fields.get("is_convolution") and factors.by == "")
        said = [] if fields.pop("factors said", False) else said
        return found | fields | {"sentences": [*sentences, *said]}

    @functools.cached_property
    def missing(self) -> int:
        """Number of right products that are absent."""
        return len(self.right.without(self.table).factor)

    @functools.cached_property
    def extra(self) -> int:
        """Number of products that should not be there."""
        return len(self.table.without(self.right).factor)

    def _reads(self) -> dict[int, list[int]]:
        pairs = row_set(self.table.channels[:, [0, 3]])
        if self.asked.problem.transposed:
            pairs = frozenset((m, q) for q, m in pairs)
        return {q: sorted(m for p, m in pairs if p == q) for q in sorted({p for p, _ in pairs})}

    def _lines(self) -> Described | None:
        """Describe a product with a line for every axis, without an exception."""
        product = self._product()
        return product if product and product[1]["straight"] else None

    def _product(self) -> Described | None:
        """Describe samples, channels and axes alone, if the table is all their combinations."""
        table, names = self.table, self.names
        if not is_product(table):
            return None
        separated = axes_of(table)
        if separated is None:
            return None
        reads, pairing = separated
        shapes = table.shapes
        sizes = [
            (shapes["positions"][2 + of_o], shapes["weight"][2 + of_t], shapes["image"][2 + a])
            for a, (of_o, of_t) in enumerate(zip(*pairing, strict=True))
        ]
        axes = fit_axes(reads, self.asked.lines, sizes)
        straight = tuple((a, a) for a in range(len(axes)))
        pairs = tuple(zip(*pairing, strict=True))
        if any(border != "zeros" for axis in axes for border in axis.border) and self.second():
            seen = {border for pair in self._seen("border") or () for border in pair}
            axes = fit_axes(reads, self.asked.lines, sizes, [border for border in BORDERS if border in seen])
        if any(axis.rules for axis in axes) and self.second():
            kinds = self._seen("kinds") or [()] * len(axes)
            axes = [_confirmed(axis, names) for axis, names in zip(axes, kinds, strict=True)]
        if pairs != straight and self.second() and self._seen("axes") != pairs:
            return None
        due = self.asked.channels(table.shapes)
        channels = fit_channels(row_set(table.channels), self.asked, row_set(due))
        orders = channels.orders
        if orders and orders[0] != "right":
            names_there = self._orders_there(orders) if all(axis.right for axis in axes) else None
            again = names_there or self._seen("orders") or ()
            channels = dataclasses.replace(channels, orders=tuple(order for order in orders if order in again))
        unnamed = channels.name is None and channels.missing is None
        odd = pairs != straight or unnamed
        told = channels.moved or not unnamed or told_by_sets(channels, due, names)
        if odd and self.layout is not None and (self.layout.order is not None or not told):
            return None
        samples = fit_samples(row_set(table.samples), shapes["positions"][0])
        said = [
            *sample_sentences(samples, sorted(row_set(table.samples)), shapes["positions"][0], names),
            *channel_sentences(channels, self.asked, names),
            *words.pairing_sentence(pairing, names),
            *words.axes_sentences(axes, self.asked, names, self.second),
        ]
        fields: dict[str, Any] = {"axes": pairs, "channel_order": channels.name, "samples": samples, "orders": orders}
        if all(axis.line is not None for axis in axes):
            fields |= _numbers_of(axes)
            if pairs == straight:
                fields["numbers"] = [(axis.stride, axis.dilation, axis.before) for axis in axes]
        fields["kinds"] = [[fit.name for fit in axis.rules] for axis in axes]
        fields["straight"] = channels.name is not None and not any(
            axis.rules or axis.missing or axis.extra for axis in axes
        )
        plain = all(_plain(axis) for axis in axes) and pairs == straight
        fields["is_convolution"] = plain and samples == "right" and channels.name is not None
        return said, fields

    def _orders_there(self, orders: Sequence[str]) -> list[str]:
        """Return the orders of channels that alone give the results of the second problem."""
        other = next(self.elsewhere(), None)
        if other is None:
            return []
        shapes, samples = other.asked.shapes, np.arange(other.asked.shapes["image"][0])
        pairs, spatial = np.stack([samples, samples], axis=1), other.asked.spatial(other.asked.shapes)
        models = ((name, np.array(sorted(rows))) for name, rows in channel_models(other.asked) if name in orders)
        return [name for name, rows in models if other.shows(combine(shapes, spatial, rows, pairs), False)]

    def _seen(self, fact: str) -> Any:
        """Return the findings on the second problem, if there is one."""
        second = self.second()
        return second.facts.get(fact) if second else None

    @functools.cached_property
    def _covered(self) -> Table:
        """The right products of the elements of the result that have any: all, unless some are left out."""
        out = roles(self.part, self.asked.problem.transposed)[0]
        return self.right.only(np.isin(self.right.flat[out], self.table.flat[out]))

    @functools.cached_property
    def layouts(self) -> tuple[Layout, ...]:
        """All arrays and orders with which the elements are out of place, if that is the only mistake."""
        return tuple(fit_layouts(self.table, self._placed, self.asked.groups)) if self.table.keys.size else ()

    @functools.cached_property
    def _placed(self) -> Table:
        """The right products that are there, if only in other places."""
        role = self.names.role
        everything = np.isin(self.right.signatures(role), self.table.signatures(role)).all()
        return self.right if everything and self.table.shapes == self.right.shapes else self._covered

    @functools.cached_property
    def layout(self) -> Layout | None:
        """The array with elements out of place, and its order if that shows on another problem that it fits, too."""
        first, others = next(iter(self.layouts), None), list(self.elsewhere())
        if first is None or first.order is None or not others:
            return first
        for one in self.layouts:
            tables = (
                (other, moved(other.asked.table(self.part), one, other.asked.groups)) for other in others if one.order
            )
            other, table = next((pair for pair in tables if pair[1] is not None), (others[0], None))
            if table is not None and other.shows(table, True):
                return one
        return dataclasses.replace(first, order=None)

    def _layout(self) -> Described | None:
        layout = self.layout
        if layout is None:
            return None
        orders = words.layout_orders(layout, self.names, self.table.spatial_dims)
        found = {"array": self.names.symbols[layout.role], "from": orders[0], "to": orders[1]} if orders else None
        said = [words.layout_sentence(layout, self.names, self.table.shapes[layout.role], orders)]
        left_out = self.right.without(self._placed)
        if len(left_out.factor):
            if orders is None:
                return None
            where = self._singled(left_out)
            said.append(
                f"No product is added {f'at {where}' if where else 'to some elements of ' + self.names.result}."
            )
        return said, {"layout": found}

    def _modelled(self, models: Iterable[Model]) -> Described | None:
        """Describe the table by the mistakes with exactly its products here, and the results of other problems."""
        if self.table.shapes != self.asked.shapes or not (self.missing or self.extra or np.any(self.table.factor != 1)):
            return None
        fitting, shown = [model for model in models if self.table.equals(model.build(self.asked))], False
        for other in self.elsewhere() if fitting else ():
            tables = [(model, model.build(other.asked)) for model in fitting]
            tables = [(model, table) for model, table in tables if other.shows(table, False)]
            fitting = [model for model, _ in tables]
            right = other.asked.table(self.part)
            shown = shown or any(not right.equals(table) for _, table in tables)
            if len(fitting) < 2 and shown:
                break
        if not shown:
            return None
        fitting = list({model.kind or model.sentence: model for model in fitting[::-1]}.values())[::-1]
        if not 1 <= len(fitting) <= 2:
            return None
        said = " Or: ".join(model.sentence for model in fitting)
        return [said], {"layout": fitting[0].layout, "factors said": True}

    def _blocks(self) -> Described | None:
        return self._modelled(block_models(self.table, self.asked, self.part, self.names))

    def _addresses(self) -> Described | None:
        places = np.moveaxis(self.table.spatial, 0, 1).reshape(len(self.table.factor), -1)
        if len(distinct(places)) < FEWEST_PLACES:
            return None  # too few to distinguish the mistakes
        return self._modelled(address_models(self.asked, self.names))

    def _rows(self) -> Described | None:
        """Describe rows that run into their neighbours, as flat indices do."""
        table, names, d = self.table, self.names, self.table.spatial_dims
        if d < 2:
            return None
        steps = flat_line(table)
        channels = fit_channels(row_set(table.channels), self.asked, row_set(self.asked.channels(table.shapes)))
        extra = self.table.without(self.right)
        if steps is None or channels.name != "right" or not len(extra.factor):
            return None
        terms = [(s, f"{names.letter}{a}") for a, s in enumerate(steps[:d])]
        terms += [(s, f"t{a}") for a, s in enumerate(steps[d : 2 * d])]
        text = " ".join(f"{'−' if s < 0 else '+'} {abs(s)}·{name}" for s, name in terms if s).removeprefix("+ ")
        shift = f" {'−' if steps[-1] < 0 else '+'} {abs(steps[-1])}" if steps[-1] else ""
        facts = {"layout": {"array": names.image, "steps": steps}}
        pitch, asked = self._pitch(steps), table.shapes["image"][-1]
        if pitch is not None and pitch != asked:
            return [
                f"A row of {names.image} is taken to be {pitch} elements long instead of {asked}: with the elements "
                f"of one channel numbered in memory order, number {text}{shift} is used."
            ], facts
        return [
            f"Rows run into one another: with the elements of one channel of {names.image} numbered in memory order, "
            f"number {text}{shift} is used, so that the end of a row is followed by the next row."
        ], facts

    def _pitch(self, steps: Sequence[int]) -> int | None:
        """Return the length of a row of a plane that these steps in memory suppose, if it is one length."""
        if self.table.spatial_dims != 2:
            return None
        (s0, d0, i0), (s1, d1, i1) = self.asked.lines
        pitch = steps[0] // s0
        return pitch if list(steps) == [s0 * pitch, s1, d0 * pitch, d1, i0 * pitch + i1] else None

    def _box(self) -> Described | None:
        """Describe a table that is right but for products that certain coordinates single out."""
        missing, extra = self.right.without(self.table), self.table.without(self.right)
        if len(extra.factor) or len(missing.factor) * 2 > len(self.right.factor):
            return None
        clauses = self._singled(missing)
        if clauses is None:
            return None
        count, whole = len(missing.factor), len(self.right.factor)
        text = "is missing, the one" if count == 1 else "are missing, those"
        return [f"{count} of {whole} products {text} with {clauses}; the others are right."], {}

    def _singled(self, some: Table) -> str | None:
        """Return the values of coordinates that single out some of the right products, if there are such values."""
        titles = {
            "positions": [f"sample of {self.names.symbols['positions']}", self.names.positions_channel],
            "weight": ["weight row", "weight column"],
            "image": [f"sample of {self.names.image}", self.names.image_channel],
        }
        for role, letter in (("positions", self.names.letter), ("weight", "t"), ("image", f"{self.names.image} index")):
            titles[role] += [f"axis {a}, {letter}" for a in range(self.table.spatial_dims)]
        clauses: list[tuple[str, Array]] = []
        for role in roles(self.part, self.asked.problem.transposed):  # the result's coordinates first
            for axis, title in enumerate(titles[role]):
                values = np.unique(some.coordinates[role][axis])
                inside = np.isin(self.right.coordinates[role][axis], values)
                if not inside.all():
                    clauses.append((f"{title} = {ranges(values.tolist())}", inside))

        def count(those: Sequence[tuple[str, Array]]) -> int:
            return int(np.count_nonzero(np.logical_and.reduce([inside for _, inside in those]))) if those else -1

        for clause in clauses[::-1]:
            fewer = [other for other in clauses if other is not clause]
            if count(fewer) == len(some.factor):
                clauses = fewer
        if count(clauses) != len(some.factor):
            return None
        return " and ".join(text for text, _ in clauses)

    def _factors(self, factors: Factors) -> list[str]:
        """Return by what products are multiplied, other than 1."""
        if factors.odd is None:
            return list(words.factor_sentences(factors, self.names, self.asked.problem, self.second))
        common, *others = (f"{value:.4g}".replace("-", "−") for value in factors.values.values())
        odd = self.table.only(factors.odd)
        same = not len(self.right.without(self.table).factor) and not len(self.table.without(self.right).factor)
        where = self._singled(odd) if same else None
        if where is None:
            return [f"{len(odd.factor)} of {len(self.table.factor)} products are multiplied by {listed(others)}; "
                    f"the others by {common}."]  # fmt: skip
        return [f"Products with {where} are multiplied by {listed(others)}; the others by {common}."]


def _confirmed(axis: Axis, names: Sequence[str]) -> Axis:
    """Return an axis with the rules that are facts, or also fit on the second problem."""
    return dataclasses.replace(
        axis, rules=tuple(fit for fit in axis.rules if RULES[fit.name].fact or fit.name in names)
    )


def _plain(axis: Axis) -> bool:
    return axis.line is not None and axis.missing is None and axis.extra is None and axis.border == ("zeros", "zeros")


def _numbers_of(axes: Sequence[Axis]) -> dict[str, Any]:
    return {
        "stride": tuple(axis.stride for axis in axes),
        "dilation": tuple(None if axis.dilation is None else abs(axis.dilation) for axis in axes),
        "padding": tuple(axis.before for axis in axes),
        "flipped": tuple(None if not axis.dilation else axis.dilation < 0 for axis in axes),
        "border": tuple(axis.border for axis in axes),
    }


def constant_sentences(constants: Entries, asked: Asked, names: Names, shapes: dict[str, Shape]) -> list[str]:
    """Return what a result adds where its operand b is zero: a padding with another number, or anything else."""
    if not len(constants.out):
        return []
    values = sorted({round(float(value), 6) for value in constants.factor.real})
    out, a, b = roles(names.part, names.transposed)
    if b == "image" and len(values) == 1:
        problem = asked.problem
        size = tuple(n + before + after for n, (before, after) in zip(problem.size, problem.pairs, strict=True))
        padded = Asked(dataclasses.replace(problem, size=size, padding=((0, 0),) * len(size)))
        border = np.ones(padded.shapes[b], bool)
        inner = tuple(slice(p, p + n) for p, n in zip(asked.before, problem.size, strict=True))
        border[:, :, *inner] = False
        table = padded.table(names.part, shapes[out])
        outside = table.only(border.reshape(-1)[table.flat[b]])
        due = set(zip(outside.flat[out].tolist(), outside.flat[a].tolist(), strict=True))
        if due == set(zip(constants.out.tolist(), constants.a.tolist(), strict=True)):
            text = f"Around {names.image} it reads {values[0]:g} instead of 0: it pads with {values[0]:g}."
            return [text.replace("-", "−")]
    count = plural(len(np.unique(constants.out)), "element")
    numbers = listed([f"{value:g}" for value in values])
    text = f"With {names.symbols[b]} all zero, {count} of {names.result} still "
    return [f"{text}add {numbers} times an element of {names.symbols[a]}."]


def right_sentence(names: Names, asked: Asked) -> str:
    """Return the lines of a right part, or that its problem has no products."""
    if not asked.table(names.part).keys.size:
        return "It is right, but on this problem every window is in the padding."
    lines = [
        formula((line[0], line[1] if taps > 1 else 0, line[2]), names.letter)
        for line, taps in zip(asked.lines, asked.problem.kernel, strict=True)
    ]
    head = f"It is right on {shown(asked.problem)}"
    return f"{head}: {'; '.join(f'along axis {a} {names.reads(line)}' for a, line in enumerate(lines))}."
