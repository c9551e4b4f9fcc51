"""Write the schemas of this version into the package: `python -m holdfast.schema`."""

from __future__ import annotations

from pathlib import Path

from holdfast.schema import NAMES, generate, text_of

for name in NAMES:
    path = Path(__file__).with_name(f"{name}.schema.json")
    path.write_text(text_of(generate(name)), encoding="utf-8", newline="\n")
