"""A session whose head is damaged, as far as its log tells of it."""

from __future__ import annotations

from holdfast.backend import Backend
from holdfast.plan import Head, Ref


def logged_head(backend: Backend, ref: Ref) -> Head:
    """A head that says where the log of a damaged one begins and ends, and nothing else."""
    first = backend.read(ref, limit=1, voided=True)
    newest = backend.read(ref, limit=1, reverse=True, voided=True)
    return Head(ref, base=first[0].seq - 1, last=newest[0].seq) if first and newest else Head(ref)
