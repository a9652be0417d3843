"""Slurm: job arrays of ``optstudy train`` through sbatch. The run folders record what is done.

Preemption and time limits send SIGTERM or SIGUSR1 before the end: the run writes a checkpoint and asks to be
requeued. A job that finds another process working on its run exits and is not requeued. A job that
disappeared without a result is submitted again by the waiting launcher, or by the next one. Needs no
accounting (sacct).
"""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from optstudy.ending import OF_SEVERAL, PREEMPTED
from optstudy.errors import UserError
from optstudy.launch import attempts
from optstudy.launch.events import Board, Event, OnEvent, Todo
from optstudy.launch.options import Slurm

POLL_SECONDS = 5.0


def launch(
    todo: Todo,
    options: Slurm,
    threads: int,
    device: str = "auto",
    on_event: OnEvent = lambda event: None,
    poll: float = POLL_SECONDS,
) -> list[Path]:
    """Submit every run, wait for results, submit new and lost runs; return those that were set aside.

    Jobs continue without this process: Ctrl-C only stops the waiting, and the same command waits again.

    Raises:
        UserError: sbatch is missing or fails; or a run failed for a reason that affects all runs.
    """
    board = Board(todo, on_event)
    jobs: dict[Path, tuple[str, int]] = {}
    while board.open:
        queued = _queued() if jobs else set()
        for folder in [f for f, (job, _) in jobs.items() if job not in queued and board.free(f)]:
            attempts.account(folder, jobs.pop(folder)[1])
        board.look()
        lost = [f for f in board.open if f not in jobs and board.free(f)]
        for start in range(0, len(lost), options.array_size):
            part = lost[start : start + options.array_size]
            lines = [len(attempts.read(folder)) for folder in part]  # before a task can add any
            array = _submit(script(part, options, threads, device), part[0].parent)
            for index, folder in enumerate(part):
                jobs[folder] = f"{array}_{index}", lines[index]
        time.sleep(poll)
        board.look()
        on_event(Event("tick"))
    return board.failed


def script(folders: Sequence[Path], options: Slurm, threads: int, device: str) -> str:
    """Return the batch script of a job array with one task per run."""
    runs = folders[0].parent.resolve()
    throttle = f"%{options.at_once}" if options.at_once else ""
    header = {
        "job-name": "optstudy",
        "array": f"0-{len(folders) - 1}{throttle}",
        "cpus-per-task": str(threads),
        "output": "/dev/null",
        "open-mode": "append",
        "signal": "B:USR1@120",
        **{
            key: value
            for key in ("partition", "account", "qos", "constraint", "time", "gres", "mem")
            if (value := getattr(options, key)) is not None
        },
        **options.extra,
    }
    names = " ".join(shlex.quote(folder.name) for folder in folders)
    command = f"{shlex.quote(sys.executable)} -m optstudy train"
    return "\n".join(
        [
            "#!/bin/bash",
            *(f"#SBATCH --{key}={_quoted(value)}" for key, value in header.items()),
            "#SBATCH --requeue",
            *options.setup,
            f"unset {' '.join(OF_SEVERAL)}",
            f"export OMP_NUM_THREADS={threads} MKL_NUM_THREADS={threads}",
            f"folders=({names})",
            f"folder={shlex.quote(str(runs))}/${{folders[$SLURM_ARRAY_TASK_ID]}}",
            f'{command} "$folder" --device {device} >>"$folder/log.txt" 2>&1 &',
            "run=$!",
            "trap 'kill -TERM $run' TERM USR1",
            "wait $run",
            "while kill -0 $run 2>/dev/null; do wait $run; done",
            "wait $run",
            "code=$?",
            f"if [ $code -eq {PREEMPTED} ]; then",
            '  scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"',
            "fi",
            "exit $code",
            "",
        ]
    )


def _quoted(value: str) -> str:
    """Quote a value for Slurm, where a blank would start another option and ``#`` a comment."""
    return f'"{value}"' if " " in value or "#" in value else value


def _submit(batch: str, directory: Path) -> str:
    """Submit a script; return the array's job id."""
    try:
        said = subprocess.run(
            ["sbatch", "--parsable", f"--chdir={directory.resolve()}"],
            input=batch,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",  # for paths that are not valid UTF-8
            check=True,
            env=_environment(),
        )
    except FileNotFoundError:
        raise UserError("--launcher slurm: there is no sbatch on this machine") from None
    except subprocess.CalledProcessError as error:
        raise UserError(f"sbatch: {' '.join(error.stderr.split())}") from None
    return said.stdout.strip().partition(";")[0]


def _environment() -> dict[str, str]:
    """Return this process's environment for jobs: no SBATCH_ variables, absolute paths."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SBATCH_")}
    places = ("OPTSTUDY_CACHE", "XDG_CACHE_HOME")
    return kept | {key: str(Path(kept[key]).expanduser().absolute()) for key in places if kept.get(key)}


def _queued() -> set[str]:
    """Array tasks of this user that wait or run; asks again if the controller does not answer."""
    command = ["squeue", "--me", "--noheader", "--array", "--format=%F_%K"]
    while True:
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        if said.returncode == 0:
            return set(said.stdout.split())
        time.sleep(POLL_SECONDS)
