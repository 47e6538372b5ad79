"""Read a bilinear function out: which pairs of elements each element of its result multiplies, and by what factor.

The function f(a, b) is called with whole numbers only. All of `b` is filled with code numbers, and a few elements of
`a` at a time; the rest of `a` is zero. Where an element of the result is factor · a[j] · b[m] for one pair (j, m), the
ratios between calls with different codes name the pair, and a call with ones gives the factor. That is true of
every convolution if the elements of `a` are chosen well (:mod:`refconv.testing.explain.table` chooses them), and
takes far fewer calls than unit impulses. Elements that read several pairs are read along each axis of `b`: how many of
their products each index has, with powers of one base as the numbers, so that one call counts several indices. Where
these counts do not determine the products, part of `b` is set to zero, down to unit impulses, as long as the budget
lasts.

Usually a few elements of `a` show the whole table: any of its taps, together with any of its channels. So these are
read first, and completed by their combinations. If that gives the function's results for dense operands, it is read.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from refconv.testing.explain.linearity import Measure, Refused, draw, largest, same
from refconv.testing.oracles.definition import Array

MOST_PRODUCTS = 1_000_000
"""Of one class, counted along axes."""
LOW_BITS = 2**18 - 1
"""The bits that already exclude most keys that were not seen."""
CONSTANT = -1
"""Index into b of a number that is not in b at all: a term that is added where b is zero."""


@dataclass(frozen=True)
class Budget:
    """Limits of one readout: the calls of the first round, as many again to separate products, and the time.

    `deadline` is on the clock of `time.perf_counter`. Without it, the result does not depend on how fast calls are.
    """

    calls: int
    deadline: float = math.inf

    def left(self, used: int) -> bool:
        """Return whether another call is allowed."""
        return used < self.calls and time.perf_counter() < self.deadline


@dataclass(frozen=True)
class Entries:
    """The nonzero products: result[out] contains factor · a[a] · b[b], all indices flat.

    `unread` lists the elements of the result that read something that was not separated into products.
    """

    out: Array
    a: Array
    b: Array
    factor: Array
    unread: Array

    def value(self, a: Array, b: Array, shape: Sequence[int]) -> Array:
        """Return the result that the products give for a and b.

        >>> one = np.array([0])
        >>> Entries(one, one, one, np.array([2.0]), one[:0]).value(np.array([3.0]), np.array([5.0]), (1,))
        array([30.])
        """
        known = np.append(b.reshape(-1), 1)  # the last is CONSTANT's
        result = np.zeros(int(np.prod(shape)), np.result_type(a, b, np.float64))
        np.add.at(result, self.out, self.factor * a.reshape(-1)[self.a] * known[self.b])
        return result.reshape(shape)


@dataclass(frozen=True)
class Job:
    """Elements of a and b that are filled together (b None: with nothing), and the results for all codes."""

    some: Array
    b: Array | None
    values: Array


@dataclass
class _Reader:
    measure: Measure
    a_shape: tuple[int, ...]
    b_shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    budget: Budget
    affine: bool  # whether the function adds something where b is zero
    found: list[tuple[Array, Array, Array, Array]] = field(default_factory=list)
    unread: list[Array] = field(default_factory=list)
    calls: int = 0
    extra: int = 0  # calls so far for elements that read several products

    def __post_init__(self) -> None:
        largest, count = code_sizes(self.dtype)
        rng = np.random.default_rng(17)
        size_a, size_b = int(np.prod(self.a_shape)), int(np.prod(self.b_shape))
        ones = np.ones((1, size_a), int), np.ones((1, size_b), int)
        self.codes_a = np.concatenate([ones[0], rng.integers(2, largest, (count, size_a), endpoint=True)])
        self.codes_b = np.concatenate([ones[1], rng.integers(2, largest, (count, size_b), endpoint=True)])
        self.axes = list(_splits(self.a_shape, self.b_shape))

    def values(self, some: Array, b: Array) -> Array:
        """Return the results for all codes of the elements `some` of a and `b` of b, without what b = 0 gives."""
        rows = np.stack([self.call(*codes, some, b) for codes in zip(self.codes_a, self.codes_b, strict=True)])
        return rows - self.zeros(some) if self.affine else rows

    def zeros(self, some: Array) -> Array:
        """Return the results for all codes of the elements `some` of a, and b = 0."""
        nothing = np.zeros(0, int)
        return np.stack([self.call(codes, self.codes_b[0], some, nothing) for codes in self.codes_a])

    def call(self, codes_a: Array, codes_b: Array, some: Array, b: Array) -> Array:
        """Call the function with codes in a few elements, and zeros."""
        a_values, b_values = np.zeros(len(codes_a), self.dtype), np.zeros(len(codes_b), self.dtype)
        a_values[some], b_values[b] = codes_a[some], codes_b[b]
        self.calls += 1
        result = self.measure(a_values.reshape(self.a_shape), b_values.reshape(self.b_shape)).reshape(-1)
        if self.dtype.kind not in "fc":
            return result
        most = max(np.max(np.abs(result), initial=0), np.max(np.abs(a_values)) * np.max(np.abs(b_values)))
        noise = 4 * float(np.finfo(self.dtype.char).eps) * most
        return np.where(np.abs(result) <= noise, 0, result)  # an FFT returns rounding errors for products of zeros

    def decoded(self, job: Job, where: Array) -> tuple[tuple[Array, Array, Array, Array], Array]:
        """Return the products of the elements `where` of the result that read one each, and the other elements."""
        factor = job.values[0, where]
        with np.errstate(all="ignore"):
            ratios = job.values[1:, where] / factor
        codes = np.where(np.isfinite(ratios), np.rint(ratios.real), -1)
        sure = (factor != 0) & np.all(np.abs(ratios - codes) < 0.25, axis=0)
        codes_of_b = np.ones((len(codes), 1), int) if job.b is None else self.codes_b[1:, job.b]
        keys = _key(self.codes_a[1:, job.some, None] * codes_of_b[:, None, :]).reshape(-1)  # of every pair
        seen, place = np.unique(_key(np.where(sure, codes, -1).astype(np.int64)), return_inverse=True)
        likely = np.zeros(LOW_BITS + 1, bool)  # most other keys differ in these bits already
        likely[seen & LOW_BITS] = True
        same = np.flatnonzero(likely[keys & LOW_BITS])
        at = np.searchsorted(seen, keys[same])
        found = np.append(seen, -1)[at] == keys[same]
        same, at = same[found], at[found]
        pair = np.zeros(len(seen), int)
        pair[at] = same
        known = sure & (np.bincount(at, minlength=len(seen)) == 1)[place]
        of_a, of_b = np.divmod(pair[place[known]], codes_of_b.shape[1])
        others = np.array([CONSTANT]) if job.b is None else job.b
        return (where[known], job.some[of_a], others[of_b], factor[known]), where[~known]

    def kept(self, job: Job, where: Array) -> Array:
        """Keep the decoded products, and return the elements of the result still unread."""
        found, rest = self.decoded(job, where)
        self.found.append(found)
        return rest

    def sums(self, job: Job, where: Array) -> Array:
        """Keep the products of elements that add up all combinations of some indices; return the other elements."""
        assert job.b is not None
        total = job.values[0, where]
        whole = bool(np.all(np.abs(total - np.rint(total.real)) < 1e-3))
        base = 2 * int(np.max(np.abs(total))) + 1 if whole else 0
        exact = _exact(self.dtype)
        digits = max(1, int(math.log(exact, base) + 1e-9)) if 1 < base <= exact else 1
        axes = [(True, np.array(np.unravel_index(job.some, self.a_shape))),
                (False, np.array(np.unravel_index(job.b, self.b_shape)))]  # fmt: skip
        places = [(in_a, row) for in_a, index in axes for row in index if row.min(initial=0) < row.max(initial=0)]
        if not self.budget.left(self.calls + sum(-(-len(np.unique(row)) // digits) for _, row in places)):
            return where
        counts = [self.counted(job, where, in_a, row, base if whole else 0, digits) for in_a, row in places]
        used = [np.abs(count) > 1e-3 for count in counts]
        each = [np.count_nonzero(chosen, axis=0) for chosen in used]
        products = np.prod(np.stack([np.ones(len(where)), *each]), axis=0)
        with np.errstate(all="ignore"):
            factor = total / products
            even = [np.abs(c * n / total - 1) < 1e-3 for c, n in zip(counts, each, strict=True)]
            good = np.all([(e | ~u).all(axis=0) for e, u in zip(even, used, strict=True)], axis=0) & (products > 0)
        good &= np.cumsum(np.where(good, products, 0)) <= MOST_PRODUCTS
        inside = [np.ones((len(where), len(some)), bool) for some in (job.some, job.b)]
        for (in_a, row), chosen in zip(places, used, strict=True):
            inside[not in_a] &= chosen[np.searchsorted(np.unique(row), row)].T
        for code_a, code_b, seen in zip(self.codes_a[1:, job.some], self.codes_b[1:, job.b], job.values[1:, where],
                                        strict=True):  # fmt: skip
            due = factor * (inside[0] @ code_a) * (inside[1] @ code_b)
            good &= np.abs(due - seen) <= 1e-3 * np.maximum(1, np.abs(seen))
        element, of_a = np.nonzero(inside[0] & good[:, None])
        which, of_b = np.nonzero(inside[1][element])
        element, of_a = element[which], of_a[which]
        self.found.append((where[element], job.some[of_a], job.b[of_b], factor[element]))
        return where[~good]

    def counted(self, job: Job, where: Array, in_a: bool, row: Array, base: int, digits: int) -> Array:
        """Return what each index of an axis, given as that of every element, adds to elements of the result for ones.

        Several indices are counted in one call: the elements of the j-th are set to base^j.
        """
        assert job.b is not None
        values, found = np.unique(row), []
        for start in range(0, len(values), digits):
            place = np.searchsorted(values, row) - start
            here = (place >= 0) & (place < digits)
            filled = np.where(here, float(base or 1) ** np.where(here, place, 0), 0)
            codes = [np.ones(math.prod(shape)) for shape in (self.a_shape, self.b_shape)]
            codes[not in_a][job.some if in_a else job.b] = filled
            seen = self.call(codes[0], codes[1], job.some, job.b)[where]
            for _ in range(min(digits, len(values) - start)):
                if not base:
                    found.append(seen)
                    break
                rest = np.rint(seen.real) + base // 2
                found.append(rest % base - base // 2)  # digits from −base // 2 to base // 2
                seen = rest // base
        return np.stack(found)

    def halves(self, job: Job, split: tuple[bool, Array]) -> list[Job]:
        """Return two jobs with half of a, or half of b, each; none if the split leaves one of them empty."""
        in_a, chosen = split
        assert job.b is not None
        picked = chosen[job.some if in_a else job.b]
        if picked.all() or not picked.any() or not self.budget.left(self.calls):
            return []
        parts = [(job.some[side] if in_a else job.some, job.b if in_a else job.b[side]) for side in (picked, ~picked)]
        values = self.values(*parts[0])
        rest = job.values - values
        if self.dtype.kind in "iu" and rest.dtype.kind == "i":
            rest = rest.astype(self.dtype).astype(rest.dtype)  # differences wrap around as the function's sums do
        return [Job(*parts[0], values), Job(*parts[1], rest)]

    def separate(self, job: Job, level: int, rest: Array) -> None:
        """Read elements of the result again, from halves of a or b."""
        splits = [split for axis in self.axes for split in axis]
        for index in range(level, len(splits)):
            halves = self.halves(job, splits[index])
            for half in halves:
                unread = self.kept(half, rest[np.any(half.values[:, rest] != 0, axis=0)])
                if len(unread):
                    self.separate(half, index + 1, unread)
            if halves:
                return
        self.unread.append(rest)

    def round(self, classes: Sequence[Array]) -> None:
        """Read the products of some classes; the first calls of every class come before the others of any."""
        everything, rests = np.arange(math.prod(self.b_shape)), []
        for some in classes:
            if time.perf_counter() > self.budget.deadline:
                raise Refused(f"It is too slow to be read out: {self.calls} calls took all the time there is.")
            if self.affine:
                constants = Job(some, None, self.zeros(some))
                unread = self.kept(constants, np.flatnonzero(np.any(constants.values != 0, axis=0)))
                self.unread += [unread] * bool(len(unread))
            job = Job(some, everything, self.values(some, everything))
            rests.append((job, self.kept(job, np.flatnonzero(np.any(job.values != 0, axis=0)))))
        self.calls = self.extra
        rests = [(job, rest) for job, rest in rests if len(rest)]
        for index, (job, rest) in enumerate(rests):
            rests[index] = job, self.sums(job, rest)
            if len(rests[index][1]) == len(rest):
                break  # the others are hardly such sums either
        rests = [(job, rest) for job, rest in rests if len(rest)]
        if rests:
            self.prefer(*rests[0])
        for job, rest in rests:
            self.separate(job, 0, rest)
        self.extra = self.calls

    def entries(self) -> Entries:
        """Return the products found so far."""
        empty = np.zeros(0, int)
        none = (empty, empty, empty, np.zeros(0))
        out, a, b, factor = (np.concatenate(column) for column in zip(none, *self.found, strict=True))
        return Entries(out, a, b, factor, np.unique(np.concatenate([empty, *self.unread])))

    def prefer(self, job: Job, rest: Array) -> None:
        """Put the axes first that separate all products of one job, or else of most of its elements."""
        axes, found, unread = self.axes, list(self.found), list(self.unread)
        self.axes = [axis for axis in axes if axis[0][0]]  # of a, which has few elements in a job
        self.separate(job, 0, rest)
        separated = len(self.unread) == len(unread)
        self.axes, self.found, self.unread = sorted(axes, key=lambda axis: not axis[0][0]), found, unread
        if separated:
            return
        whole = []
        for first, *_ in self.axes:
            halves = self.halves(job, first)
            divided = [np.any(half.values[:, rest] != 0, axis=0) for half in halves]
            whole.append(len(rest) - (np.count_nonzero(divided[0] & divided[1]) if halves else 0))
        order = sorted(range(len(whole)), key=whole.__getitem__)
        self.axes = [self.axes[index] for index in order]


def code_sizes(dtype: np.dtype[np.generic]) -> tuple[int, int]:
    """Return the largest code number, and how many calls tell the codes of two operands and their products from others.

    >>> code_sizes(np.dtype("float64")), code_sizes(np.dtype("int8"))
    ((45, 4), (11, 6))
    """
    if dtype.kind in "iu" and dtype.itemsize == 1:
        return 11, 6
    return (13, 5) if dtype == np.float16 else (45, 4)


def read(
    measure: Measure,
    a_shape: Sequence[int],
    b_shape: Sequence[int],
    classes: Sequence[Array],
    dtype: np.dtype[np.generic],
    budget: Budget,
    affine: bool,
    first: int = 0,
    complete: Callable[[Entries], Entries | None] = lambda entries: None,
) -> Entries:
    """Return all products of a function that is linear in `a` and linear (or affine) in `b`.

    Parameters
    ----------
    measure : callable
        ``measure(a, b) -> result``.
    a_shape, b_shape : sequence of int
        Shapes of the operands; their first two axes are batch and channels, or the two channels of a weight.
    classes : sequence of numpy.ndarray
        Flat indices into a, filled together. Every element of a is in one class.
    dtype : numpy.dtype
        Data type of the operands.
    budget : Budget
        How much to spend on elements that read several products of one class.
    affine : bool
        Whether the function gives something other than zero for b = 0.
    first : int
        How many classes may show all products.
    complete : callable
        Returns all products, guessed from the first classes, or None. The others are read only if the guess
        is wrong for some operands.

    Returns
    -------
    Entries
        The products.

    Examples
    --------
    >>> entries = read(lambda a, b: a[:, 1:] * b, (1, 2), (1, 1), [np.array([0, 1])], np.dtype("float64"),
    ...                Budget(0), affine=False)
    >>> entries.out, entries.a, entries.b, entries.factor
    (array([0]), array([1]), array([0]), array([1.]))
    """
    reader = _Reader(measure, tuple(a_shape), tuple(b_shape), dtype, budget, affine)
    if first and not affine:
        reader.round(classes[:first])
        guess = complete(reader.entries()) if not reader.unread else None
        if guess is not None and confirmed(measure, guess, a_shape, b_shape, dtype):
            return guess
        classes = classes[first:]
        count = len(classes) * len(reader.codes_a)
        if count > budget.calls:
            raise Refused(f"To read it out, {count} calls are needed; at most {budget.calls} were allowed.")
    reader.round(classes)
    return reader.entries()


def _splits(a_shape: tuple[int, ...], b_shape: tuple[int, ...]) -> Iterator[list[tuple[bool, Array]]]:
    """Yield for each axis its halves (in a?, chosen elements), by each bit of the index.

    Samples and channels of b come first, because sums over them are common.
    """
    for in_a, shape in ((False, b_shape), (True, a_shape)):
        index = np.indices(shape).reshape(len(shape), -1)
        for axis, size in enumerate(shape):
            halves = [(in_a, index[axis] >> bit & 1 == 1) for bit in range((size - 1).bit_length())]
            if halves:
                yield halves


def _key(codes: Array) -> Array:
    """Return one number for the code products along the first axis; −1 marks a failure."""
    key = np.zeros(codes.shape[1:], np.int64)
    for row in codes:
        key = key * 4096 + row
    return key


def _exact(dtype: np.dtype[np.generic]) -> int:
    """Return up to where whole numbers, and sums of them, are exact."""
    if dtype.kind in "iu":
        return int(min(2**53, np.iinfo(dtype.char).max))
    return int(2 / np.finfo(dtype.char).eps)


def confirmed(
    measure: Measure,
    entries: Entries,
    a_shape: Sequence[int],
    b_shape: Sequence[int],
    dtype: np.dtype[np.generic],
    partly: bool = False,
) -> bool:
    """Return whether products give the function's results for three pairs of dense operands, small and large.

    With `partly`, results that are zero do not count, if they are fewer than half.
    Two different sums of products of whole numbers give the same result for such numbers only by a rare chance.
    """
    rng, most = np.random.default_rng(18), largest(dtype)
    for tops in ((3, most), (most, 3), (3, 3)):
        a, b = (draw(rng, shape, dtype, top) for shape, top in zip((a_shape, b_shape), tops, strict=True))
        actual = measure(a, b)
        if actual.size <= entries.out.max(initial=-1):
            return False  # a result that is too small
        predicted = entries.value(a, b, actual.shape)
        if dtype.kind in "iu":
            predicted = np.rint(predicted).astype(np.int64).astype(dtype)
        if partly and 2 * np.count_nonzero(actual) > actual.size:
            predicted = np.where(actual == 0, actual, predicted)
        if not same(actual, predicted, dtype, 4):
            return False
    return True


def agrees(
    measure: Measure, entries: Entries, a_shape: Sequence[int], b_shape: Sequence[int], dtype: np.dtype[np.generic]
) -> bool:
    """Return whether the products reproduce the function on operands that were not used to find them."""
    rng = np.random.default_rng(6)
    a, b = draw(rng, a_shape, dtype), draw(rng, b_shape, dtype)
    actual = measure(a, b)
    keep = np.ones(actual.size, bool)
    keep[entries.unread] = False
    predicted = entries.value(a, b, actual.shape)
    with np.errstate(all="ignore"):
        if dtype.kind in "iu":
            predicted = np.rint(predicted).astype(np.int64).astype(dtype)
    return same(actual.reshape(-1)[keep], predicted.reshape(-1)[keep], dtype)
