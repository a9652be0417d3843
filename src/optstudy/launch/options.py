"""What a study file says of the cluster that runs it."""

from optstudy.config import Count
from optstudy.errors import Strict


class Slurm(Strict):
    """How runs are submitted to Slurm; what is left out is the cluster's default."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    time: str | None = None
    """Limit of one run, as Slurm writes it: ``04:00:00``."""
    gres: str | None = None
    """Per run, such as ``gpu:1``."""
    mem: str | None = None
    at_once: Count | None = None
    """Most runs at a time."""
    array_size: Count = 1000
    """Most runs in one job array; a cluster's MaxArraySize less one."""
    setup: list[str] = []
    """Shell lines before the run, such as ``module load``."""
    extra: dict[str, str] = {}
    """Further ``#SBATCH --key=value`` lines."""
