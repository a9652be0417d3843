"""The command line: which commands there are, and how errors are told. A command loads when it is called."""

import sys
from typing import NoReturn

from cyclopts import App, CycloptsError

from optstudy import __version__
from optstudy.ending import DONE, FAILED, PREEMPTED, USERS_ERRNOS, USERS_MISTAKE, RunFailed, end
from optstudy.errors import UserError

app = App(
    name="optstudy",
    version=__version__,
    help="Which optimizer, at what setting, and how safe is that choice?",
    help_epilogue="Start with: optstudy demo",
    help_format="markdown",
    suppress_keyboard_interrupt=False,
)
data = App(name="data", help="Prepare and inspect corpora and token files.")
bench = App(name="bench", help="Measure speed, beside other libraries, in one run.")
app.command(data)
app.command(bench)

for parent, name, target in (
    (app, "demo", "studies:demo"),
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


def main() -> NoReturn:
    """Run the command line and exit with its code; modules are looked for in the working folder, too."""
    sys.path.append("")
    end(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; the user's mistakes become one line on standard error and exit code 2."""
    if arguments[:1] in ([], ["--help"], ["-h"]):
        for name in app:  # their descriptions come with them, and stand in the list of commands
            app[name]
    try:
        code = app(arguments, exit_on_error=False, result_action="return_value")
    except CycloptsError:
        return USERS_MISTAKE
    except UserError as error:
        return _mistake(str(error))
    except RunFailed as error:
        sys.stderr.write(f"optstudy: {error}\n")
        return FAILED
    except OSError as error:
        if error.errno not in USERS_ERRNOS:
            raise
        return _mistake(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except KeyboardInterrupt:
        sys.stderr.write("optstudy: stopped; the same command continues\n")
        return PREEMPTED
    return code if isinstance(code, int) else DONE


def _mistake(message: str) -> int:
    sys.stderr.write(f"optstudy: {message}\n")
    return USERS_MISTAKE
