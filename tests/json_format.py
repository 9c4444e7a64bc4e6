"""The one way that JSON files of bundles and data lists are written: what is short stands on one line.

python tests/json_format.py FILE [FILE ...]     # rewrites the files
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

WIDTH = 120


def formatted(content: Any) -> str:
    """JSON text of a whole file: lists and objects without nested objects stand on one line where they fit."""
    return _format(content, top=True) + "\n"


def _is_nested(value: Any) -> bool:
    return isinstance(value, (list, dict)) and bool(value)


def _is_short(value: Any, room: int) -> bool:
    """Whether a value goes on one line: it fits, and holds nothing deeper than a list of plain values."""
    inner = value.values() if isinstance(value, dict) else value
    flat = all(
        not _is_nested(item) or (isinstance(item, list) and not any(_is_nested(x) for x in item)) for item in inner
    )
    return flat and len(json.dumps(value, ensure_ascii=False)) <= room


def _format(value: Any, indent: int = 0, before: int = 0, *, top: bool = False) -> str:
    line = json.dumps(value, ensure_ascii=False)
    if not _is_nested(value) or (not top and _is_short(value, WIDTH - indent - before - 1)):
        return line
    pad, end = " " * (indent + 4), "\n" + " " * indent
    if isinstance(value, dict):
        keys = {json.dumps(key, ensure_ascii=False): item for key, item in value.items()}
        lines = [f"{pad}{key}: {_format(item, indent + 4, len(key) + 2)}" for key, item in keys.items()]
        return "{\n" + ",\n".join(lines) + end + "}"
    return "[\n" + ",\n".join(pad + _format(item, indent + 4) for item in value) + end + "]"


def main(files: list[str]) -> None:
    """Rewrite the files that are written otherwise."""
    for name in files:
        path = Path(name)
        text = path.read_text(encoding="utf-8")
        if text != (better := formatted(json.loads(text))):
            path.write_text(better, encoding="utf-8")
            print(f"rewritten: {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
