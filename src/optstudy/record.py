"""Run records: plain folders of JSON that are readable without this program. Standard library only."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write to a temporary name beside ``path``, sync, rename: a reader never sees half a file."""
    data = content.encode() if isinstance(content, str) else content
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, tree: Any) -> None:
    """Write one JSON document atomically; NaN and infinities are refused."""
    write_atomically(path, json.dumps(tree, indent=1, allow_nan=False) + "\n")
