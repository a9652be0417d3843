"""The Python interface: a study, its runs and what they say. No torch.

study = optstudy.open_study("paper/fig1", scale="pico", runs="runs")
study.run(jobs=2).claims()
"""

import math
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from optstudy import report as reports
from optstudy.ending import DONE, USERS_MISTAKE
from optstudy.errors import UserError
from optstudy.outcomes import Judge, arguments, recorded
from optstudy.results.curves import Curve
from optstudy.results.equivalents import Ratio
from optstudy.results.export import plain, table
from optstudy.results.figure import Figure
from optstudy.study import library as study
from optstudy.study.asking import ask
from optstudy.study.session import Session
from optstudy.trials import Trial

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


def open_study(
    name: str | Path,
    *,
    scale: str | None = None,
    runs: Path | str = "runs",
    overrides: Mapping[str, Any] | None = None,
    axes: Mapping[str, Sequence[Any]] | None = None,
    seeds: int | None = None,
    fresh: bool = False,
) -> "Findings":
    """Open a study with a runs folder. Nothing runs, and torch is not imported.

    Args:
        name: one of ``optstudy studies``, or your own file, ``mine.yaml``.
        scale: the scale; by default ``pico``, or the file's first.
        runs: the folder that holds the run folders; it need not exist.
        overrides: config values that override the study's, by dotted key.
        axes: values to run instead of the study's, by dotted key.
        seeds: seeds of every point, instead of the study's; if not given, further ones that have run are
            shown.
        fresh: ignore the package's own record, whose runs count as done in the paper's studies.

    Raises:
        UserError: no such study or scale, or a mistake in the study's file.
    """
    name = str(name)
    chosen = study.load(name)
    if axes:
        chosen = replace(chosen, axes={key: _listed(key, values) for key, values in axes.items()})
    kept = {} if fresh else recorded(name, chosen.scale(scale))
    return Findings(Session(chosen, scale, Path(runs), overrides, seeds, kept=kept, all_seeds=True), fresh)


def _listed(key: str, values: Any) -> list[Any]:
    """Return the values of an axis, which may be any iterable but a text."""
    found = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else []
    if not found:
        raise UserError(f"axes: {key}: must be a list of values, such as [1e-3, 1e-2], not {values!r}")
    return found


class Findings:
    """A study at one scale, and the results of its finished runs. Every method reads the runs folder again.

    Args:
        session: the study with its runs folder.
        fresh: the package's record is ignored.
    """

    def __init__(self, session: Session, fresh: bool = False) -> None:
        self._session, self._fresh = session, fresh
        self._judge = Judge([session])

    def __repr__(self) -> str:
        session = self._session
        done = len(self.data().rows)
        return f"<study {session.study.name} at {session.scale}: {done} finished runs in {session.runs}>"

    def data(self) -> Figure:
        """The study's figure as data: panels, curves, points and runs."""
        (found,) = self._judge.figures()
        return found

    def run(self, jobs: int | None = None) -> Self:
        """Run what has no result yet, as ``optstudy run`` does, in a separate process.

        Its output goes to standard output. Ctrl-C stops it, and the next call continues.

        Args:
            jobs: runs at a time; by default one per core, or per GPU.

        Raises:
            UserError: a mistake that can be corrected, in one line; or runs that failed.
        """
        session = self._session
        words = [sys.executable, "-m", "optstudy", *arguments(session), "--runs", str(session.runs)]
        words += ["--fresh"] * self._fresh + ([] if jobs is None else ["--jobs", str(jobs)])
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(
                [*words, "--out", folder],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                errors="replace",
                start_new_session=True,  # Ctrl-C reaches it once, through this process
            )
            with process:
                assert process.stdout is not None
                try:
                    for line in process.stdout:
                        if not line.startswith("wrote "):
                            sys.stdout.write(line)
                except KeyboardInterrupt:
                    process.send_signal(signal.SIGINT)
                    process.wait()
                    raise
            errors.seek(0)
            said = errors.read().strip().splitlines() or ["no reason given"]
        if process.returncode == USERS_MISTAKE:
            raise UserError(said[-1].removeprefix("optstudy: "))
        if process.returncode != DONE:
            raise UserError(f"{shlex.join(words[2:])} ended with {process.returncode}: {said[-1]}")
        return self

    def ask(self) -> Iterator[Trial]:
        """Yield the study's runs without a result, for your own training loop.

        ``for trial in study.ask(): ...; trial.finish(val_loss=...)``. Points of adaptive axes and further
        seeds follow when results require them. A run that is not finished when the next is requested has
        failed, and is yielded once more. If the loop is left or raises an error, its run is yielded again
        next time. Several processes may iterate at the same time: each run goes to one of them.

        Raises:
            UserError: the study's file has no ``trainer``.
        """
        return ask(self._session)

    def table(self) -> list[dict[str, Any]]:
        """One record per finished run and curve: ``id``, ``curve``, results, the config by dotted key.

        Values are plain, with one type per column, as ``pandas.DataFrame(study.table())`` and
        ``polars.DataFrame(...)`` expect.
        """
        return plain(table(self.data()))

    def curves(self) -> list[Curve]:
        """Every curve, with its points, their runs and the runs' training curves.

        ``curve.points[0].runs[0].history`` holds the rows of a run's metrics.
        """
        return self.data().curves

    def summary(self) -> list[dict[str, Any]]:
        """One record per curve: best loss and setting with their intervals, sensitivity, safe window.

        For another program, ``best_loss`` is the best value of its metric.
        """
        return [_summarised(self.data(), panel, s) for panel in self.data().panels for s in panel.summaries]

    def figure(self) -> "Drawing":
        """The study's figure, drawn by matplotlib.

        Raises:
            UserError: no run has ended.
        """
        drawing: Drawing = reports.drawing(self._some())
        return drawing

    def claims(self) -> list[dict[str, Any]]:
        """The study's claims, each with its verdict.

        Each has ``name``, ``statement``, ``figure``, ``scale``, ``verdict``, ``estimate``, ``sign`` (``<`` or
        ``>`` if the estimate is only a bound), ``unit``, ``interval``, ``seeds``, ``test``, ``why`` (why it
        is not decided) and ``changed`` (after how many runs), as in ``optstudy claims --json``.
        """
        return [dict(claim) for claim in self.data().claims]

    def report(self, folder: Path | str, formats: Iterable[str] = reports.DEFAULT_FORMATS) -> list[Path]:
        """Write the report into a folder, which is created, and return its files.

        Args:
            folder: the report's folder.
            formats: one or several of ``html``, ``pdf``, ``svg``, ``png``, ``md`` and ``tex``.

        Raises:
            UserError: no run has ended, or an unknown format.
        """
        chosen = [formats] if isinstance(formats, str) else formats
        return reports.write(self._some(), Path(folder), chosen)

    def _repr_html_(self) -> str:
        """The HTML that Jupyter shows: the answer, the table and the figure."""
        return reports.fragment(self.data())

    def _some(self) -> Figure:
        found = self.data()
        if not found.rows:
            raise UserError(f"{found.name}: no run has ended in {self._session.runs}; first: {found.command}")
        return found


def _summarised(figure: Figure, panel: Any, summary: Any) -> dict[str, Any]:
    best, setting, sensitivity, safe = summary.best, summary.setting, summary.sensitivity, summary.safe
    low, high = (best and best.interval) or (None, None)
    value = best and best.value
    if figure.metric.maximise and best is not None:
        value, low, high = (None if one is None else -one for one in (best.value, high, low))
    around = (setting and setting.interval) or (None, None)
    return {
        "panel": figure.title_of(summary.curve.panel),
        "curve": summary.curve.label,
        "best_loss": value,
        "best_loss_low": low,
        "best_loss_high": high,
        "seeds": len(summary.tried.rows),
        "axis": panel.key,
        "best_setting": summary.at if best else None,
        "best_setting_low": None if around[0] is None else 10 ** around[0],
        "best_setting_high": None if around[1] is None else 10 ** around[1],
        "fitted": summary.fitted,
        "best_tried": summary.tried.x if best else None,
        "best_tried_loss": (-summary.tried.loss if figure.metric.maximise else summary.tried.loss)
        if best
        else None,
        "sensitivity": sensitivity and sensitivity.value,
        "sensitivity_window": summary.window,
        **_tokens(figure.equivalents.get(summary.curve.label)),
        "safe_low": safe and safe.low,
        "safe_high": safe and safe.high,
        "state_bytes_per_param": summary.state_bytes,
        "step_ms": summary.step_ms,
        "peak_memory_mb": summary.peak_memory_mb,
        "diverged": summary.diverged,
        "runs": summary.runs,
    }


def _tokens(found: Ratio | None) -> dict[str, Any]:
    """A token-equivalent; if it is only a bound, ``token_equivalent_sign`` says in which direction."""
    low, high = (found and found.interval) or (None, None)
    return {
        "token_equivalent": found and found.value,
        "token_equivalent_sign": found and found.sign,
        "token_equivalent_low": low,
        "token_equivalent_high": None if high == math.inf else high,
        "token_equivalent_fitted": found and found.fitted,
    }
