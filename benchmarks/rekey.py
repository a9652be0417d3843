"""Rewrite a committed record with the ids that this version of the program computes; runs nothing.

    python benchmarks/rekey.py src/optstudy/studies/record/pico.csv

Configs, results and curves stay the same. If several runs now have one id, such as one optimizer's under two
names, the one with the shorter name stays; their results must be bitwise equal.
"""

import sys
from dataclasses import replace
from pathlib import Path

from optstudy.config import RunConfig
from optstudy.identity import run_id
from optstudy.record import write_atomically
from optstudy.results import archive


def rekeyed(before: archive.Archive) -> dict[str, archive.Entry]:
    """Return a record's entries under their ids."""
    after: dict[str, archive.Entry] = {}
    for entry in sorted(before.values(), key=lambda entry: (len(entry.row.optimizer), entry.row.id)):
        found = run_id(entry.row.config)
        if RunConfig.model_validate(entry.row.config).id != found:
            raise ValueError(f"{entry.row.id}: its config is not complete")
        twin = after.setdefault(found, replace(entry, row=replace(entry.row, id=found))).row
        if (twin.state, twin.val_loss, twin.train_loss) != (
            entry.row.state,
            entry.row.val_loss,
            entry.row.train_loss,
        ):
            raise ValueError(f"{entry.row.id} and another are {found} now, and ended differently")
    return after


def main() -> None:
    """Rewrite the given files."""
    for path in map(Path, sys.argv[1:]):
        before = archive.read(path)
        after = rekeyed(before)
        write_atomically(path, archive.dump(after))
        sys.stdout.write(f"{path}: {len(before)} runs, {len(after)} ids\n")


if __name__ == "__main__":
    main()
