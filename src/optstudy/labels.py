"""Labels of curves in plans: ``PANEL / CURVE`` where a study has panels, ``ROW / COLUMN`` in a map."""

from collections.abc import Iterable

SEPARATOR = " / "


def joined(panel: str, curve: str) -> str:
    """Return the label of a panel's curve; without a panel the curve's name."""
    return SEPARATOR.join(filter(None, (panel, curve)))


def placed(label: str, panels: Iterable[str], is_map: bool = False) -> tuple[str, str, str]:
    """Return panel, row and curve of a label; what it does not have is empty.

    Args:
        label: what a plan calls a curve.
        panels: names of the study's panels.
        is_map: curves are named ``ROW / COLUMN``; of other studies none is cut.
    """
    panel = max((name for name in panels if name and in_panel(label, name)), key=len, default="")
    curve = label.removeprefix(f"{panel}{SEPARATOR}") if panel else label
    row, _, column = curve.rpartition(SEPARATOR) if is_map else ("", "", curve)
    return panel, row, column


def is_curve(label: str, curve: str, panel: str | None = None) -> bool:
    """Whether a label is that curve's, of that panel or of any."""
    if panel is not None:
        return label == joined(panel, curve)
    return label == curve or label.endswith(SEPARATOR + curve)


def in_panel(label: str, panel: str | None) -> bool:
    """Whether a label is of a curve of that panel."""
    return panel is not None and label.startswith(panel + SEPARATOR)
