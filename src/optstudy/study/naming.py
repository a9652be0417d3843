"""The names of a study's curves, derived from its file alone; claims may refer to these."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from optstudy.claims.evaluation import alike
from optstudy.claims.measures import Relation, Where, Wrong
from optstudy.config import merge
from optstudy.errors import UserError, nearest
from optstudy.record import at_key
from optstudy.study.families import Families, Family
from optstudy.study.file import StudyFile
from optstudy.study.variables import substituted

OTHER = ": "
"""Separates a study's name from the name of its curve: ``paper/fig1: adam``."""

Names = Mapping[str, Sequence[str] | None]
"""Curves by panel; None if they are only known from the runs."""


class Naming:
    """Finds the curves that a study's claims refer to.

    Args:
        study: the study with the claims.
        file: its file.
        read: maps a study's name to its file.
    """

    def __init__(self, study: str, file: StudyFile, read: Callable[[str], StudyFile]) -> None:
        self._study, self._read = study, read
        self._known = {study: (file, curves(study, file))}

    def __call__(self, curve: str, panel: str | None) -> Where:
        """Return the place of a curve.

        Args:
            curve: as written: a curve of this study, or ``STUDY: CURVE``.
            panel: as written.

        Raises:
            Wrong: there is no such curve or panel.
            UserError: there is no such study, or its file is invalid.
        """
        study = self._study
        other, colon, rest = curve.partition(OTHER)
        if colon and not any(_has(some or (), curve) for some in self._known[study][1].values()):
            study, curve = other, rest
        if study not in self._known:
            file = self._read(study)
            self._known[study] = file, curves(study, file)
        file, names = self._known[study]
        if panel is not None and panel not in file.panels:
            has = nearest(panel, file.panels) if file.panels else "; it has no panels"
            raise Wrong(f"{study} has no panel {panel!r}{has}")
        asked = [some for title, some in names.items() if panel in (None, title)]
        if not any(some is None or _has(some, curve) for some in asked):
            place = study if panel is None else f"panel {panel!r} of {study}"
            known = {name for some in asked for name in some or ()}
            raise Wrong(f"{place} has no curve {curve!r}{nearest(curve, known)}")
        return Where(study, curve, panel)

    def check_tokens(self, relations: Sequence[Relation]) -> None:
        """Refuse token-equivalents of curves whose study names no reference.

        Raises:
            Wrong: the study's file lacks ``tokens``.
        """
        measures = [one for some in relations for q in some.quantities for one in (q.one, q.other) if one]
        for study in {one.curve.study for one in measures if one.function == "tokens"}:
            if self._known[study][0].tokens is None:
                raise Wrong(
                    f"{study} has no token-equivalents: its file names no reference and its lengths, such as "
                    "tokens: {reference: adam, from: beyond/horizon}"
                )


def curves(study: str, file: StudyFile) -> Names:
    """Return the curves of every panel of a study, at any scale."""
    scales = {"paper", "pico", *file.scales, *(scale for p in file.panels.values() for scale in p.scales)}
    found: dict[str, dict[str, None] | None] = {}
    for scale in sorted(scales):
        families = Families(study, file, scale, {}, len(file.seeds))
        for title, panel, its in families.panels():
            included = [*file.include.values(), *panel.include.values()]
            mine = found.setdefault(title, dict.fromkeys(name for some in included for name in some))
            for family in families.of(panel, its):
                named = list(_named(family, file.figure.curve))
                if not named or mine is None:
                    found[title] = mine = None
                else:
                    mine.update(dict.fromkeys(named))
    return {title: None if some is None else list(some) for title, some in found.items()}


def _named(family: Family, key: str) -> Iterator[str]:
    """The names of a family's curves: its own, or the values of the config key that names them, if known."""
    if family.curve is not None:
        yield f"{family.curve}{family.suffix}"
    elif family.axis == key:
        yield from (f"{value}{family.suffix}" for value in family.values)
    else:
        variables = {name: value for name, value in family.layers[-1].items() if name.startswith("$")}
        try:
            value = merge(*(substituted(layer, variables) for layer in family.layers))
        except UserError:
            return
        if (named := at_key(value, key)) is not None:
            yield f"{named}{family.suffix}"


def _has(names: Sequence[str], wanted: str) -> bool:
    """Whether a curve has this name; curves in several parts have a comma and the difference after it."""
    return any(alike(name, wanted) or wanted.startswith(f"{name}, ") for name in names)
