"""The Slurm options of a study file."""

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from optstudy.errors import Count, Strict, unit

_QUOTING = "\"'\\"
_KEY = re.compile("[a-z][a-z0-9-]*")


def _of_one_line(value: str) -> str:
    """Refuse text that would end an ``#SBATCH`` line or that Slurm would read differently."""
    if not value or not value.isprintable() or any(sign in value for sign in _QUOTING):
        raise ValueError(
            "must be a text of one line, without quotation marks, backslashes or control characters"
        )
    return value


def _option(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is not the name of an sbatch option, such as mail-type")
    if key == "array":
        raise ValueError("'array' is set by optstudy; set array_size and at_once")
    return key


Text = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
    AfterValidator(_of_one_line),
]
"""The value of an ``#SBATCH`` line; integers are allowed."""


class Slurm(Strict):
    """How runs are submitted to Slurm; omitted options use the cluster's defaults."""

    partition: Text | None = None
    """Partition, Slurm's word for a queue."""
    account: Text | None = None
    """Account that is charged."""
    qos: Text | None = None
    """Quality of service."""
    constraint: Text | None = None
    """Features that nodes must have."""
    time: Text | None = None
    """Time limit of one run, in Slurm's format: ``04:00:00``."""
    gres: Text | None = None
    """Generic resources per run, such as ``gpu:1``."""
    mem: Text | None = None
    """Memory of one run, such as ``16G``."""
    at_once: Annotated[Count, unit("runs")] | None = None
    """Maximum number of runs at a time."""
    array_size: Annotated[Count, unit("runs")] = 1000
    """Maximum number of runs in one job array: the cluster's MaxArraySize minus one."""
    setup: list[str] = []
    """Shell lines to execute before the run, such as ``module load``."""
    extra: dict[Annotated[str, AfterValidator(_option)], Text] = {}
    """Further ``#SBATCH --key=value`` lines."""
