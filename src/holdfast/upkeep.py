"""What whoever runs a store does with it: retention, recovery, checks, backups. `Store` adds what agents do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.finding.references import given
from holdfast.storage import Storage

if TYPE_CHECKING:
    from holdfast.check import CheckReport
    from holdfast.moving.backups import Backup
    from holdfast.moving.copying import CopyReport
    from holdfast.retention.policies import Policy
    from holdfast.retention.prunes import Prune
    from holdfast.retention.retention import PrunePlan
    from holdfast.retention.trash import Trash
    from holdfast.turns.leases import Lease
    from holdfast.turns.recovery import Recovery


class Upkeep(Storage):
    """A storage, and what is done to keep it in order."""

    def index(self) -> int:
        """Bring the search index up to date now rather than at the next search; the number of events it took."""
        return self.backend.index()

    @property
    def trash(self) -> Trash:
        """The sessions that were put away: to put one there, to list, restore and purge them."""
        from holdfast.retention.trash import Trash

        return Trash(self)

    def prune(self, policy: Policy) -> PrunePlan:
        """What a policy would move to the trash, and what it spares, and why. Nothing is changed until it is applied.

        Every session's head is read, and none of its events.

        Raises:
            Invalid: from `Policy` itself: a number that makes no sense.
        """
        from holdfast.retention.retention import plan_prune

        return plan_prune(self, policy)

    def prunes(self, *, limit: int = 50) -> list[Prune]:
        """The newest prunes that were applied: when, by what policy, what came of it, and whether it was undone."""
        from holdfast.retention.prunes import history

        return history(self, limit)

    def compact(self) -> None:
        """Give the space of what was deleted back, and leave no byte of it in the store's files; `trash.purge` does so.

        It takes as long as copying the store. Others read meanwhile; who writes waits.

        Raises:
            Unavailable: a long read elsewhere is in the way, or the disk is full; nothing was lost, try again.
        """
        self.backend.compact()

    def backup(self, path: str, *, replace: bool = False, dry_run: bool = False) -> Backup:
        """Write all into a file, 0600, while others write; `Exists` if there is one. See docs/MOVING.md.

        With `dry_run` everything is read, and nothing written.
        """
        from holdfast.moving.backups import write_backup

        return write_backup(self, path, replace=replace, dry_run=dry_run)

    def restore(self, path: str, *, merge: bool = False, partial: bool = False, dry_run: bool = False) -> CopyReport:
        """Bring back what `backup` wrote. `partial` takes what is whole of a damaged store, `dry_run` only reads.

        Raises:
            Invalid: the store is not empty and `merge` was not said; or the file is no bundle, or of a newer version.
            NotFound, Corrupt: it is not there; it was cut off or damaged, and where. Nothing was restored.
        """
        from holdfast.moving.backups import restore_backup

        return restore_backup(self, path, merge=merge, partial=partial, dry_run=dry_run)

    def running(self) -> list[Lease]:
        """Who runs a session now, the latest begun first, and how each `standing` is."""
        from holdfast.turns import recovery

        return recovery.running(self)

    def stuck(self, *, older_than: float | None = None, wait: float = 0) -> list[Lease]:
        """The runs that stopped without an end, the oldest first; nothing is changed.

        That is known at once if the holder ran on this machine. Of other machines' turns it is known once this store
        has seen the heartbeat stand still for the ttl: stay for it with `wait`, or call again.

        Args:
            older_than: Also runs without a lease, as other programs mark them, that were silent for so many seconds.
            wait: Seconds to stay and watch heartbeats.

        Raises:
            Invalid: `older_than` is negative or no number.
        """
        from holdfast.turns import recovery

        return recovery.stuck(self, older_than, wait)

    def recover(
        self,
        *sessions: str,
        name: str | None = None,
        older_than: float | None = None,
        wait: float = 0,
        dry_run: bool = False,
    ) -> list[Recovery]:
        """Close the runs that are `stuck`, answer the tool calls they left open, and say where to go on.

        Each session is changed by one commit, and only if it is still as it was seen; its state is then `error`, the
        reason "interrupted". What was executed is answered with its result, so that no finished tool runs twice.

        Args:
            *sessions, name: Only these; one that is not stuck is spared, and `why` says why.
            older_than, wait: As in `stuck`.
            dry_run: Only say what would be done.
        """
        from holdfast.turns import recovery

        named = given(self, None, name)
        return recovery.recover(self, sessions if named is None else (*sessions, named), older_than, wait, dry_run)

    def check(
        self, *, session: str | None = None, name: str | None = None, sweep: bool = False, repair: bool = False
    ) -> CheckReport:
        """Read everything, or one session by its id or name, and name whatever is damaged. Nothing is changed.

        Args:
            sweep: Then delete the blobs of large values and artifacts that nothing refers to any more; none, if there
                is anything that can't be read. Writers of large values wait meanwhile; nothing else sweeps by itself.
                And the checkpoints that are wrong, and those of sessions that are gone.
            repair: First make the lists again by which sessions are found, from the sessions. Only Redis keeps such.

        Raises:
            Invalid: a sweep or repair of one session, or a repair where there is nothing to repair.
        """
        from holdfast.check import check_store

        return check_store(self, given(self, session, name, trashed=True), sweeps=sweep, repairs=repair)
