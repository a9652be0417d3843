"""Formulas as MathML, which browsers render themselves, so the site needs no external script."""

import re

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer ``mathml``."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def inline(translator: HTML5Translator, node: nodes.math) -> None:
    """Write an inline formula."""
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def block(translator: HTML5Translator, node: nodes.math_block) -> None:
    """Write a displayed formula, aligned at ``&``."""
    accents_bound = re.sub(r"\\hat\s*(\\[a-z]+|\w)", r"{\\hat \1}{}", node.astext().strip())
    code = rf"\begin{{aligned}}{accents_bound}\end{{aligned}}"
    translator.body.append(f'<div class="math">{tex2mathml(code, as_block=True)}</div>\n')
    raise nodes.SkipNode
