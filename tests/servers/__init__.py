"""Real database servers for the tests: private, on loopback, on free ports, ended with the tests however those end.

`python tests/servers` tells what is to be installed for them, which `scripts/test.py` does.
"""

from __future__ import annotations
