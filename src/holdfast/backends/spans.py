"""Sets of numbers as spans: `(first, last)`, in order, apart from each other. Pure."""

from __future__ import annotations

from bisect import bisect_right

Spans = tuple[tuple[int, int], ...]


def marked(spans: Spans, first: int, last: int, *, take: bool = True) -> Spans:
    """The spans with the numbers from `first` to `last`, or without them."""
    kept: list[tuple[int, int]] = []
    for one, other in spans:
        if other < first - 1 or one > last + 1:
            kept.append((one, other))
        elif take:
            first, last = min(first, one), max(last, other)
        else:
            if one < first:
                kept.append((one, min(other, first - 1)))
            if other > last:
                kept.append((max(one, last + 1), other))
    if take:
        kept.append((first, last))
    return tuple(sorted(kept))


def holds(spans: Spans, number: int) -> bool:
    """Whether a number is in one of the spans."""
    at = bisect_right(spans, (number, float("inf")))
    return at > 0 and spans[at - 1][1] >= number


def reach(spans: Spans, first: int, last: int, count: int, *, reverse: bool) -> tuple[int, int]:
    """The part of `first` to `last`, from its start or its end, in which `count` numbers are not in the spans."""
    if reverse:
        at = last
        for one, other in reversed(spans):
            if other > at:
                other = at  # a span that the end cuts
            if other < first or one > other:
                continue
            free = at - other
            if free >= count:
                break
            count -= free
            at = one - 1
        return max(first, at - count + 1), last
    at = first
    for one, other in spans:
        if one < at:
            one = at  # a span that the start cuts
        if one > last or one > other:
            continue
        free = one - at
        if free >= count:
            break
        count -= free
        at = other + 1
    return first, min(last, at + count - 1)
