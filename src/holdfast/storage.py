"""What all that a store can do stands on: one backend, and what is built once above the seam."""

from __future__ import annotations

from collections.abc import Collection

from holdfast.backend import Backend
from holdfast.backends import open_backend
from holdfast.batch import Batcher
from holdfast.errors import Invalid
from holdfast.heads.info import session_ref
from holdfast.heads.settings import secret_names
from holdfast.history.standings import crossed
from holdfast.large import LargeValues
from holdfast.plan import Head, check_id
from holdfast.refusals import present
from holdfast.shown import shown
from holdfast.turns.keeping import Turns
from holdfast.turns.places import Place
from holdfast.wording import searched


class Storage:
    """An open backend with its batcher, its large values and its turns; a `Store` adds all that is done with them."""

    def __init__(
        self, url: str, secrets: Collection[str] = (), *, backend: Backend | None = None,
        user: str | None = None, create: bool = True,
    ) -> None:  # fmt: skip
        """Open what the URL names, which must be there unless it may be created; or stand on a backend that is open,
        which shows what is this user's."""
        if not isinstance(url, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # a Path is a likely slip
            raise Invalid(f"a store is named by a URL such as sqlite:///path/file.db, not by a {type(url).__name__}")
        self.url = shown(url)
        self.secrets = secret_names(secrets)
        self.user = user
        """Whose store it is, of one that `for_user` made; None for the whole store."""
        self.large = LargeValues()
        self.backend = backend or open_backend(url, self.text_of, create=create)
        self.large.blobs = self.backend.blobs
        self.batcher = Batcher(self.backend, crossed)
        self.turns = Turns(self.batcher, self.large, Place())
        self.durability = self.backend.info()["durability"]

    def text_of(self, body: bytes) -> str:
        """What search looks at in a stored body; see `backend.TextOf`."""
        return searched(body, self.large)

    def peek(self, id: str) -> Head | None:
        """The head of a session, a tombstone too; None if there never was one."""
        check_id(id, "session id")
        return self.backend.get([session_ref(id)])[0]

    def head(self, id: str, *, trashed: bool = False) -> Head:
        """The head of a session; with `trashed`, also of one in the trash.

        Raises:
            NotFound, Deleted, Trashed: there is none.
        """
        return present(self.peek(id), session_ref(id), trashed=trashed)
