"""Options and arguments that several commands have, as they are spelt on the command line."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

RUNS = Path("runs")
"""Where run folders are, if nothing else is said."""
StudyName = Annotated[str, Parameter(name="study")]
Assignments = Annotated[tuple[str, ...], Parameter(name="--set", allow_leading_hyphen=True)]
Axes = Annotated[tuple[str, ...], Parameter(name="--axis", allow_leading_hyphen=True)]
Scale = Annotated[str | None, Parameter(show_default=False)]
Json = Annotated[bool, Parameter(name="--json")]
