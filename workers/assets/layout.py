"""Where boxes and arrows go: layers along one axis, few crossings, nothing over anything else. Deterministic.

Written for two axes: *along*, in which arrows lead, and *across*. Who draws decides which of them is down. An arrow
that spans several layers passes each of them through a place of its own, and its label is such a place with a size.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

GAP_ACROSS: Final = 28.0
GAP_ALONG: Final = 26.0
_SWEEPS: Final = 8
_STRAIGHT: Final = 4.0
"""How much more the places of an arrow hold on to a straight line than boxes do."""


@dataclass(frozen=True, slots=True)
class Size:
    """Of a box or a label, in pixels."""

    across: float
    along: float


@dataclass(frozen=True, slots=True)
class Point:
    """A place, in pixels from the first corner."""

    across: float
    along: float


@dataclass(frozen=True, slots=True)
class Way:
    """How one arrow runs: from border to border, straight on every second stretch and curved on the others."""

    points: tuple[Point, ...]
    label: Point | None
    """Middle of its label."""
    backwards: bool
    """Whether it leads against the layers: its head is at the first point."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Middles of the boxes, ways of the arrows, size of the whole."""

    boxes: tuple[Point, ...]
    ways: tuple[Way, ...]
    size: Size


def lay_out(boxes: Sequence[Size], arrows: Sequence[tuple[int, int]], labels: Sequence[Size | None]) -> Layout:
    """Return where everything goes.

    Args:
        boxes: their sizes.
        arrows: from which box to which, by number; none leads from a box to itself.
        labels: the size of each arrow's label; None where it has none.
    """
    backwards = _against_the_stream(len(boxes), arrows)
    ways = [(b, a) if back else (a, b) for (a, b), back in zip(arrows, backwards, strict=True)]
    step = 2 if any(labels) else 1
    return _Layers(boxes, ways, labels, _ranks(len(boxes), ways, step)).layout(backwards)


def _against_the_stream(count: int, arrows: Sequence[tuple[int, int]]) -> list[bool]:
    """Tell for each arrow whether it closes a circle, walking from the first box on; without those there is none."""
    leaving: dict[int, list[int]] = {box: [] for box in range(count)}
    for number, (source, _) in enumerate(arrows):
        leaving[source].append(number)
    entered = {target for _, target in arrows}
    backwards, done, open_boxes = [False] * len(arrows), set[int](), set[int]()

    def walk(box: int) -> None:
        open_boxes.add(box)
        for number in leaving[box]:
            target = arrows[number][1]
            backwards[number] = target in open_boxes
            if target not in open_boxes and target not in done:
                walk(target)
        open_boxes.discard(box)
        done.add(box)

    for box in sorted(range(count), key=lambda box: box in entered):
        if box not in done:
            walk(box)
    return backwards


def _ranks(count: int, ways: Sequence[tuple[int, int]], step: int) -> list[int]:
    """Return each box's layer: `step` or more after those that lead to it; sources right before their first target."""
    ranks = [0] * count
    for _ in range(count):
        for source, target in ways:
            ranks[target] = max(ranks[target], ranks[source] + step)
    entered = {target for _, target in ways}
    for box in set(range(count)) - entered:
        ranks[box] = min((ranks[target] - step for source, target in ways if source == box), default=0)
    return ranks


@dataclass(slots=True)
class _Item:
    """A box, or a place an arrow passes."""

    rank: int
    size: Size
    weight: float
    across: float = 0.0


_NOTHING: Final = Size(0, 0)


class _Layers:
    """Items in layers, moved about until their neighbours are near."""

    def __init__(
        self, boxes: Sequence[Size], ways: Sequence[tuple[int, int]], labels: Sequence[Size | None], ranks: list[int]
    ) -> None:
        self._count = len(boxes)
        self._items = [_Item(rank, size, 1.0) for rank, size in zip(ranks, boxes, strict=True)]
        self._labels = labels
        self._chains = [self._chain(way, label) for way, label in zip(ways, labels, strict=True)]
        self._before: list[list[int]] = [[] for _ in self._items]
        self._after: list[list[int]] = [[] for _ in self._items]
        for chain in self._chains:
            for one, other in pairwise(chain):
                self._after[one].append(other)
                self._before[other].append(one)
        self._layers: list[list[int]] = [[] for _ in range(max(ranks) + 1)]
        for number, item in enumerate(self._items):
            self._layers[item.rank].append(number)

    def _chain(self, way: tuple[int, int], label: Size | None) -> list[int]:
        """Return the items an arrow passes, its boxes included, its label in the middle."""
        first, last = self._items[way[0]].rank, self._items[way[1]].rank
        chain = [way[0]]
        for rank in range(first + 1, last):
            here = label if label and rank == (first + last) // 2 else None
            chain.append(len(self._items))
            self._items.append(_Item(rank, here or _NOTHING, _STRAIGHT))
        return [*chain, way[1]]

    def layout(self, backwards: Sequence[bool]) -> Layout:
        for sweep in range(_SWEEPS):
            self._order(downwards=sweep % 2 == 0)
        for sweep in range(_SWEEPS):
            self._place(downwards=sweep % 2 == 0)
        self._shift()
        starts = self._starts()
        boxes = tuple(self._middle(item, starts) for item in range(self._count))
        ways = tuple(
            Way(self._points(chain, starts), self._label(chain, label, starts), back)
            for chain, label, back in zip(self._chains, self._labels, backwards, strict=True)
        )
        across = max(item.across + item.size.across / 2 for item in self._items)
        return Layout(boxes, ways, Size(across, starts[-1] + self._thickness(len(starts) - 1)))

    def _order(self, *, downwards: bool) -> None:
        """Sort each layer by where its neighbours in the layer before stand: fewer arrows cross."""
        near = self._before if downwards else self._after
        place = {item: at for layer in self._layers for at, item in enumerate(layer)}
        for layer in self._layers if downwards else reversed(self._layers):
            wanted = {item: _mean([place[other] for other in near[item]], place[item]) for item in layer}
            layer.sort(key=wanted.__getitem__)
            place.update((item, at) for at, item in enumerate(layer))

    def _place(self, *, downwards: bool) -> None:
        """Move each layer's items as near to the middle of their neighbours as their order and sizes let them."""
        for layer in self._layers if downwards else reversed(self._layers):
            items = [self._items[number] for number in layer]
            near = [[self._items[other].across for other in self._before[n] + self._after[n]] for n in layer]
            wanted = [_mean(places, item.across) for item, places in zip(items, near, strict=True)]
            apart = [(a.size.across + b.size.across) / 2 + GAP_ACROSS for a, b in pairwise(items)]
            for item, across in zip(items, _in_order(wanted, apart, [item.weight for item in items]), strict=True):
                item.across = across

    def _shift(self) -> None:
        left = min(item.across - item.size.across / 2 for item in self._items)
        for item in self._items:
            item.across -= left

    def _thickness(self, rank: int) -> float:
        return max((self._items[number].size.along for number in self._layers[rank]), default=0.0)

    def _starts(self) -> list[float]:
        starts = [0.0]
        for rank in range(1, len(self._layers)):
            starts.append(starts[-1] + self._thickness(rank - 1) + GAP_ALONG)
        return starts

    def _middle(self, number: int, starts: Sequence[float]) -> Point:
        item = self._items[number]
        return Point(item.across, starts[item.rank] + self._thickness(item.rank) / 2)

    def _points(self, chain: Sequence[int], starts: Sequence[float]) -> tuple[Point, ...]:
        """Return border, end of the layer, start of the next, its end, …, border."""
        points: list[Point] = []
        for number in chain:
            item = self._items[number]
            start = starts[item.rank]
            points += [Point(item.across, start), Point(item.across, start + self._thickness(item.rank))]
        first, last = self._middle(chain[0], starts), self._middle(chain[-1], starts)
        points[0] = Point(first.across, first.along + self._items[chain[0]].size.along / 2)
        points[-1] = Point(last.across, last.along - self._items[chain[-1]].size.along / 2)
        return tuple(points)

    def _label(self, chain: Sequence[int], label: Size | None, starts: Sequence[float]) -> Point | None:
        if label is None:
            return None
        return next(self._middle(number, starts) for number in chain[1:-1] if self._items[number].size is label)


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _in_order(wanted: Sequence[float], apart: Sequence[float], weights: Sequence[float]) -> Iterable[float]:
    """Return the places nearest to those wanted (least squares) that keep the order and the distances."""
    shift, shifts = 0.0, [0.0]
    for distance in apart:
        shift += distance
        shifts.append(shift)
    pooled: list[tuple[float, float, int]] = []  # mean, weight, how many
    for want, moved, weight in zip(wanted, shifts, weights, strict=True):
        mean, total, count = want - moved, weight, 1
        while pooled and pooled[-1][0] >= mean:
            before, held, many = pooled.pop()
            mean = (before * held + mean * total) / (held + total)
            total, count = held + total, many + count
        pooled.append((mean, total, count))
    means = [mean for mean, _, count in pooled for _ in range(count)]
    return [mean + moved for mean, moved in zip(means, shifts, strict=True)]
