"""How a backend is proven: the suite that holdfast's own backends pass, for whoever writes another.

    from holdfast.testing import BackendContract, BackendMachine

    class TestMine(BackendContract):
        def make(self, place, text_of):
            return MyBackend(place / "store", text_of)

    class MyMachine(BackendMachine):
        def make(self, place, text_of):
            return MyBackend(place / "store", text_of)

    TestMyMachine = MyMachine.TestCase

The contract states each promise of `holdfast.backend.Backend` as an example with a name; the machine makes up
histories, and holds the backend against `MemoryBackend` after every step. A backend that appends to files says in
`tear` what a crash leaves in them, and one that keeps an index beside them says in `derived` which files that is. It
takes the extra `holdfast[testing]`.
"""

from __future__ import annotations

import pytest

for _module in ("subject", "heads", "logs", "listing", "searching", "sharing", "mishaps", "contract", "machine"):
    pytest.register_assert_rewrite(f"holdfast.testing.{_module}")

# Only now: a module's asserts are rewritten, so that they explain themselves, as it is imported.
from holdfast.testing.contract import BackendContract, failures  # noqa: E402
from holdfast.testing.machine import BackendMachine  # noqa: E402
from holdfast.testing.subject import text_of  # noqa: E402

__all__ = ["BackendContract", "BackendMachine", "failures", "text_of"]
