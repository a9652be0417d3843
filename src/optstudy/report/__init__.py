"""Reports of a study's runs: self-contained HTML pages, figures for papers, tables. No torch."""

from optstudy.report.comparison import Comparison, compare, show_comparison, write_comparison
from optstudy.report.figures import drawing
from optstudy.report.files import DEFAULT_FORMATS, FORMATS, TABLES, check, draw, drawing_pool, place, write
from optstudy.report.index import write_index
from optstudy.report.live import serve
from optstudy.report.page import claims_page, fragment
from optstudy.report.terminal import lines, plain, show, table

__all__ = [
    "DEFAULT_FORMATS",
    "FORMATS",
    "TABLES",
    "Comparison",
    "check",
    "claims_page",
    "compare",
    "draw",
    "drawing",
    "drawing_pool",
    "fragment",
    "lines",
    "place",
    "plain",
    "serve",
    "show",
    "show_comparison",
    "table",
    "write",
    "write_comparison",
    "write_index",
]
