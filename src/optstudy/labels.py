"""Labels of curves: ``PANEL / CURVE`` where a figure has panels."""

SEPARATOR = " / "


def joined(panel: str, curve: str) -> str:
    """Return the label of a panel's curve; without a panel the curve's name."""
    return SEPARATOR.join(filter(None, (panel, curve)))


def cut(label: str) -> tuple[str, str]:
    """Return panel and curve; the panel is empty where the label names none."""
    panel, _, curve = label.rpartition(SEPARATOR)
    return panel, curve


def is_curve(label: str, curve: str, panel: str | None = None) -> bool:
    """Whether a label is that curve's, of that panel or of any."""
    if panel is not None:
        return label == joined(panel, curve)
    return label == curve or label.endswith(SEPARATOR + curve)


def in_panel(label: str, panel: str | None) -> bool:
    """Whether a label is of a curve of that panel."""
    return panel is not None and label.startswith(panel + SEPARATOR)
