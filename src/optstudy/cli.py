"""The command line: the list of commands, and error reporting. A command is imported when it is called."""

import io
import os
import sys
from typing import Any, NoReturn, TextIO, get_args

from cyclopts import App, ArgumentCollection, CycloptsError, Parameter, UnusedCliTokensError

from optstudy import __version__
from optstudy.ending import (
    DONE,
    FAILED,
    PREEMPTED,
    USERS_ERRNOS,
    USERS_MISTAKE,
    RunFailed,
    end,
    out_of_memory,
)
from optstudy.errors import UserError, printable, shortened, shown


def _whole(_app: App, _command: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Refuse 1.5 for an integer, which cyclopts would round."""
    for argument in arguments:
        for token in argument.tokens if int in (argument.hint, *get_args(argument.hint)) else ():
            if "." in token.value:
                raise UserError(f"{argument.name}: must be a whole number, not {shown(token.value)}")


app = App(
    name="optstudy",
    version=__version__,
    help="Which optimizer, at what setting, and how safe is that choice?",
    help_epilogue="Start with: optstudy demo",
    help_format="markdown",
    default_parameter=Parameter(negative_iterable=()),
    suppress_keyboard_interrupt=False,
    config=_whole,
)
data = App(name="data", help="Prepare and inspect corpora and token files.")
bench = App(name="bench", help="Measure speed, compared with other libraries in the same run.")
app.command(data)
app.command(bench)
app.register_install_completion_command(
    help="Let the shell complete commands and options on Tab (bash, zsh, fish): writes a file to your home "
    "folder, and a line that loads it to the shell's start file."
)

for parent, name, target in (
    (app, "demo", "studies:demo"),
    (app, "init", "init:init"),
    (app, "run", "studies:run"),
    (app, "status", "studies:status"),
    (app, "report", "reports:report"),
    (app, "compare", "reports:compare"),
    (app, "claims", "claims:claims"),
    (app, "show", "studies:show"),
    (app, "studies", "studies:studies"),
    (app, "train", "training:train"),
    (app, "export", "records:export"),
    (app, "schema", "records:schema"),
    (app, "optimizers", "optimizers:optimizers"),
    (bench, "optim", "bench:optim"),
    (bench, "train", "bench:train"),
    (data, "prepare", "data:prepare"),
    (data, "list", "data:list_"),
    (data, "verify", "data:verify"),
    (data, "info", "data:info"),
    (data, "show", "data:show"),
):
    parent.command(f"optstudy.commands.{target}", name=name)


LOOP = "Symlink loop from "
"""Start of the error of :meth:`Path.resolve` for a link to itself, before Python 3.13."""


def main() -> NoReturn:
    """Run the command line and exit with its code; modules are also imported from the working folder."""
    sys.path.append("")
    sys.stdout, sys.stderr = _unbroken(sys.stdout), _unbroken(sys.stderr)
    code = run(sys.argv[1:])
    sys.stdout.flush()
    why = getattr(getattr(sys.stdout.buffer, "raw", None), "failed", None)
    end(_mistake(f"standard output: {why}") if why is not None and code == DONE else code)


class _Output(io.FileIO):
    """Standard output or error; once its reader is gone, as in ``| head``, further output is discarded."""

    failed: str | None = None
    """Why it could not be written otherwise; further output is then discarded as well."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if not isinstance(error, BrokenPipeError):
                self.failed = error.strerror
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(data)


def _unbroken(stream: TextIO | None) -> TextIO:
    """Return a stream on the same file that survives a closed reader; for a closed stream, a null device."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123  # for as long as the process
    stream.flush()
    raw = io.BufferedWriter(_Output(stream.fileno(), "w", closefd=False))
    by_line = stream.isatty() or stream is sys.stderr
    return io.TextIOWrapper(raw, stream.encoding, "backslashreplace", line_buffering=by_line)


def run(arguments: list[str]) -> int:
    """Run one command; user mistakes become one line on standard error and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names may have characters outside the locale
    words = [word for word in arguments if word not in ("--help", "-h")]
    for group in [g for g, path in ((app, []), (data, ["data"]), (bench, ["bench"])) if words == path]:
        for name in group:  # loads their descriptions for the list of commands
            group[name]
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except UnusedCliTokensError as error:
        words = ["optstudy", *(error.command_chain or ())]
        surplus = ", ".join(map(repr, error.unused_tokens or ()))
        return _mistake(f"unexpected argument {surplus}; {' '.join(words)} --help lists what it takes")
    except CycloptsError as error:
        return _mistake(" ".join(str(error).split()))
    except UserError as error:
        return _mistake(str(error))
    except (RunFailed, MemoryError) as error:
        sys.stderr.write(f"optstudy: {printable(out_of_memory(error) or error)}\n")
        return FAILED
    except RuntimeError as error:
        if not str(error).startswith(LOOP):
            raise
        return _mistake(f"{str(error).removeprefix(LOOP)}: a link that leads to itself")
    except OSError as error:
        if error.errno not in USERS_ERRNOS:
            raise
        return _mistake(
            f"{shortened(str(error.filename), 300)}: {error.strerror}" if error.filename else str(error)
        )
    except KeyboardInterrupt:
        sys.stderr.write("optstudy: stopped; the same command continues\n")
        return PREEMPTED
    return code if isinstance(code, int) else DONE


def _mistake(message: str) -> int:
    sys.stderr.write(f"optstudy: {printable(message)}\n")
    return USERS_MISTAKE
