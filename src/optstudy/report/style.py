"""Colours, markers, names and number formats, shared by the page, the figures and the terminal.

The colours are Okabe and Ito's, adjusted so that each has a contrast of at least 3:1 with white and with the
dark page, and the first five are distinct for the colour-blind. Each colour always has the same marker.
"""

import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from optstudy.claims.measures import AXIS
from optstudy.results.curves import Curve, said
from optstudy.results.curves import number as number
from optstudy.results.equivalents import Ratio
from optstudy.results.estimate import Estimate
from optstudy.results.figure import Figure, Metric
from optstudy.results.gaps import Series
from optstudy.results.stats import Summary

COLOURS = (
    "#0072b2",
    "#009e73",
    "#d57c00",
    "#bf699c",
    "#bc440d",
    "#2e9bd6",
    "#6a55e8",
    "#d81b60",
    "#7f7f7f",
    "#8f7a2a",
)
LIGHT, DARK = "#ffffff", "#14161a"
"""Background colours of the page."""
MANY = 8
"""Number of curves of one plot above which each is drawn on small axes of its own."""
INK = "#16181d"
"""Colour of text, axes and grid of drawn figures; in SVG, the colour of the text around."""

KNOWN = {
    "adam": ("Adam", 0),
    "adafactor": ("Adafactor", 1),
    "lion": ("Lion", 2),
    "signum": ("Signum", 3),
    "sgdw": ("SGD", 4),
    "adalayer": ("Adalayer", 5),
    "adalayer_star": ("Adalayer*", 6),
    "sophia": ("Sophia", 7),
    "adafactor_bigvision": ("Adafactor (big_vision)", 8),
    "hybrid_last": ("SGD, adaptive last layer", 9),
    "adam_tied_betas": ("Adam, tied betas", 10),
    "hybrid_adafactor_last_norm": ("SGD, Adafactor last layer and norms", 11),
    "frozen_keep_last": ("Frozen but last layer", 12),
    "frozen_keep_norm": ("Frozen but norms", 13),
    "frozen_all": ("Frozen Adalayer*", 14),
    "adalayer_star_first": ("Adalayer*, rows of the embedding", 15),
    "adalayer_star_norms_off": ("Adalayer*, norms off", 16),
    "hybrid_last_norm": ("SGD, adaptive last layer and norms", 17),
    "hybrid_matrix_only": ("SGD, adaptive matrices only", 18),
    "hybrid_last_norms_off": ("SGD, adaptive last layer, norms off", 19),
    "frozen_keep_last_norms_off": ("Frozen but last layer, norms off", 22),
    "frozen_all_norms_off": ("Frozen Adalayer*, norms off", 24),
    "frozen_keep_last_norm": ("Frozen but last layer and norms", 28),
}
"""Names as in the paper, and palette slots, see :func:`colour` and :func:`marker`."""

ROLES = ("head", "qkv", "attention_out", "mlp_in", "mlp_out", "norm", "embedding")
"""In the order of Figure 2: last layer, matrices, norms; then the roles that it leaves out."""


def _polygon(corners: int, turn: float = 0.0, inner: float = 1.0) -> tuple[tuple[float, float], ...]:
    """A polygon of area :data:`AREA`, y downwards; every other corner at ``inner`` times the radius."""
    count = corners if inner == 1 else 2 * corners
    radii = [1.0 if k % 2 == 0 else inner for k in range(count)]
    size = math.sqrt(AREA / (count / 2 * inner * math.sin(math.tau / count)))
    angles = [turn + math.tau * k / count for k in range(count)]
    return tuple(
        (round(size * r * math.sin(a), 4), round(-size * r * math.cos(a), 4))
        for r, a in zip(radii, angles, strict=True)
    )


AREA = 2.4
MARKERS = (
    _polygon(24),
    _polygon(4, math.pi / 4),
    _polygon(3),
    _polygon(4),
    _polygon(3, math.pi),
    _polygon(5),
    _polygon(4, 0.0, 0.35),
    _polygon(4, math.pi / 4, 0.35),
    _polygon(6),
    _polygon(5, 0.0, 0.45),
)
"""Marker outlines of equal area."""


def known(name: str) -> str:
    """A name as in the paper."""
    return KNOWN[name][0] if name in KNOWN else name


def name(curve: Curve) -> str:
    """The curve's name as in the paper, without its panel; in a map, with its row."""
    own = known(curve.name) + apart(curve)
    return f"{curve.row} / {own}" if curve.row else own


def full_name(figure: Figure, curve: Curve) -> str:
    """Panel and name."""
    return " / ".join(filter(None, (figure.title_of(curve.panel), name(curve))))


def name_in(figure: Figure, curve: Curve) -> str:
    """The name that distinguishes a curve from those it is compared with: in a map, with its panel."""
    return full_name(figure, curve) if figure.kind == "map" else name(curve)


def apart(curve: Curve) -> str:
    """What distinguishes a curve from others of its name: ``, batch size 16``."""
    return _apart(curve.apart)


def series(found: Series) -> str:
    """The name of an optimizer's gaps, without the setting on the axis."""
    return known(found.curve.name) + _apart(found.apart)


def _apart(keys: Iterable[tuple[str, Any]]) -> str:
    return said((key, known(value) if key == "optimizer.name" else value) for key, value in keys)


def slots(curves: Iterable[Curve]) -> Mapping[str, int]:
    """The palette slot of each curve, by label: fixed for known optimizers, else from the name's checksum."""
    own = {curve.label: curve.name + apart(curve) for curve in curves}
    taken: dict[str, int] = {n: KNOWN[n][1] for n in own.values() if n in KNOWN}
    for unknown in sorted(set(own.values()) - set(taken)):
        colours = {slot % len(COLOURS) for slot in taken.values()}
        free = [k for k in range(len(COLOURS)) if k not in colours] or [max(taken.values()) + 1]
        taken[unknown] = free[zlib.crc32(unknown.encode()) % len(free)]
    return {label: taken[n] for label, n in own.items()}


def colour(slot: int) -> str:
    """Colour of a palette slot; slots ten apart share a colour and differ in the marker."""
    return COLOURS[slot % len(COLOURS)]


def marker(slot: int) -> tuple[tuple[float, float], ...]:
    """Marker outline of a palette slot."""
    return MARKERS[(slot + slot // len(MARKERS)) % len(MARKERS)]


def look(slot: int, size: float) -> dict[str, Any]:
    """Colour and marker of a palette slot for matplotlib, which scales outlines to equal extent."""
    corners = marker(slot)
    outline = [(x, -y) for x, y in (*corners, corners[0])]
    extent = max(abs(part) for corner in outline for part in corner)
    drawn = {"marker": outline, "markersize": 2 * size * extent, "markeredgewidth": 0}
    return {"color": colour(slot), **drawn}


def drawn(text: str) -> str:
    """Text escaped for matplotlib, so that it is not read as a formula."""
    return printable(text).replace("$", r"\$")


def printable(text: str) -> str:
    """Text with each control character replaced by a mark."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two ``#rrggbb`` colours (WCAG 2.2), 1 to 21."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def role(name: str) -> tuple[int, str]:
    """Sort key of a role's name; unknown roles come last."""
    return (ROLES.index(name) if name in ROLES else len(ROLES)), name


def value(metric: Metric, estimate: Estimate, sign: str = "") -> str:
    """A value or difference of the metric, with its interval if there is one: ``4.903 ± 0.037``."""
    half = estimate.half_width
    return metric.text(estimate.value, sign) + ("" if half is None else f" ± {metric.size(half)}")


def distance(metric: Metric, estimate: Estimate, sign: str = "") -> str:
    """Distance of a value from the best, in the direction that is worse: ``+0.037 ± 0.012``."""
    return value(replace(metric, maximise=False), estimate, sign)


def ratio(found: Ratio) -> str:
    """A token-equivalent with its interval: ``0.83 (0.75 to 0.92)``; ``> 1.00`` outside the lengths.

    If an end of the interval is outside the lengths, it is shown as a bound: ``0.95 (0.88 to > 1.00)``.
    """
    if not found.gaps:
        return "1"
    first, last = (f"{end:.2f}" for end in (found.ratios[0], found.ratios[-1]))
    shown = f"{found.sign} {found.value:.2f}".strip()
    if found.interval is None:
        return shown
    low, high = found.interval
    low_text = f"{low:.2f}" if low else f"< {first}"
    high_text = f"{high:.2f}" if math.isfinite(high) else f"> {last}"
    if found.sign == "<":
        return shown if high <= found.value else f"{shown} (to {high_text})"
    if found.sign == ">":
        return shown if low >= found.value else f"{shown} (from {low_text})"
    return f"{shown} ({low_text} to {high_text})"


def verdict(claim: Mapping[str, Any]) -> str:
    """A claim on one line: verdict, statement, test, deciding number, and whether it was changed."""
    (value, interval), seeds = measured(claim, "+"), claim.get("seeds")
    test = f" ({claim['test']})" if claim.get("test") else ""
    found = f"; {value}" if value else ""
    if interval:
        found += f", {interval}, {seeds} seeds"
    told = "".join(f"; {one}" for one in (looked(claim), claim.get("why"), claim.get("changed")) if one)
    return f"{claim['verdict']}: {claim['statement']}{test}{found}{told}"


def looked(claim: Mapping[str, Any]) -> str:
    """The look at which a claim was judged, if there are looks; else empty."""
    return f"at the look at {claim['look']} seeds, {claim['level']:.1%}" if claim.get("look") else ""


def measured(claim: Mapping[str, Any], sign: str = "") -> tuple[str, str]:
    """The deciding number of a claim, ``< 1.000`` if it is a bound, and its interval; empty if there is none.

    Args:
        claim: as :meth:`optstudy.claims.verdict.Verdict.tree` returns it.
        sign: ``+``: numbers have a sign, except settings.
    """

    def text(value: Any) -> str:
        if not isinstance(value, float):
            return str(value)
        return number(float(f"{value:.3g}")) if claim.get("unit") == AXIS else f"{value:{sign}.3f}"

    value, interval = claim.get("estimate"), claim.get("interval")
    shown = "" if value is None else f"{claim.get('sign') or ''} {text(value)}".strip()
    return shown, " to ".join(map(text, interval)) if isinstance(interval, (list, tuple)) else ""


def setting(summary: Summary) -> str:
    """The best setting, from the parabola if one fits."""
    return number(summary.at)


def around(summary: Summary) -> str:
    """The interval of the best setting: ``8.9e-3 to 0.0141``; empty if there is none."""
    if summary.setting is None or summary.setting.interval is None:
        return ""
    low, high = summary.setting.interval
    return f"{number(float(f'{10**low:.2g}'))} to {number(float(f'{10**high:.2g}'))}"


def tried(metric: Metric, summary: Summary) -> str:
    """The best setting that was run: ``4.903 at 0.01``."""
    return f"{metric.text(summary.tried.loss)} at {number(summary.tried.x)}"


def window(half: float) -> str:
    """The window of a sensitivity, as text."""
    if math.isinf(half):
        return "over the whole grid"
    return f"within ±{half:g} decade" + "s" * (half != 1)


def count(n: float) -> str:
    """A large number in short form: 1.6 M."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if n >= size:
            return f"{n / size:.3g} {letter}"
    return f"{n:.0f}"
