"""What `info` and `doctor` tell of the replicas that a store's URL names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.reading import Replica


def replica_shape(replica: Replica) -> dict[str, Any]:
    """A replica as JSON."""
    return {"address": replica.address, "behind": replica.behind, "bytes": replica.bytes, "why": replica.why}


def state_of(replica: Replica) -> str:
    """A replica in words."""
    if replica.why:
        return f"not read from: {replica.why}"
    return f"at most {replica.behind:.3f} s behind, {replica.bytes:,} bytes to replay"
