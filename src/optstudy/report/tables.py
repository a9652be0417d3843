"""The summary table as Markdown and LaTeX."""

from optstudy.report import style
from optstudy.report.answer import answer
from optstudy.report.columns import columns
from optstudy.results.figure import Figure

LATEX = {
    "\\": r"\textbackslash{}",
    **{c: "\\" + c for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "÷": r"$\div$",
    "–": "--",
    "\u00a0": "~",
    "λ": r"$\lambda$",
}


def markdown(figure: Figure, caption: str) -> str:
    """A pipe table under a heading, with the answer, the columns' explanations and the claims."""
    claims = [f"- {_markdown(style.verdict(claim))}" for claim in figure.claims]
    return "\n".join([table(figure, caption), *meanings(figure), *([""] if claims else []), *claims]) + "\n"


def table(figure: Figure, caption: str) -> str:
    """The same without the explanations of the columns."""
    made = columns(figure)
    found = answer(figure)
    lines = [f"# {_markdown(figure.title)}", "", _markdown(caption), "", _markdown(found.sentence), ""]
    lines.append("| " + " | ".join(_markdown(c.heading) for c in made) + " |")
    lines.append("|" + "|".join(":--" if c.text else "--:" for c in made) + "|")
    lines += [
        "| " + " | ".join(map(_markdown, row)) + " |" for row in zip(*(c.cells for c in made), strict=True)
    ]
    lines += ["", *(f"- {_markdown(text)}" for text in (*found.rest, *found.warnings))]
    return "\n".join(lines)


def meanings(figure: Figure) -> list[str]:
    """The columns' explanations as list items."""
    return [f"- {_markdown(c.heading)}: {_markdown(c.about)}." for c in columns(figure) if c.about]


def latex(figure: Figure, caption: str) -> str:
    """A ``table`` for booktabs; its caption gives the runs, the window and the interval."""
    made = columns(figure)
    rows = [" & ".join(map(_latex, row)) + r" \\" for row in zip(*(c.cells for c in made), strict=True)]
    about = "; ".join(f"{c.heading}: {c.about}" for c in made if c.about)
    return (
        "\n".join(
            [
                r"% needs \usepackage{booktabs,graphicx}",
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{_latex(figure.title)}. {_latex(caption)}. {_latex(about)}.}}",
                r"\resizebox{\linewidth}{!}{%",
                rf"\begin{{tabular}}{{{''.join('l' if c.text else 'r' for c in made)}}}",
                r"\toprule",
                " & ".join(_latex(c.heading) for c in made) + r" \\",
                r"\midrule",
                *rows,
                r"\bottomrule",
                r"\end{tabular}}",
                r"\end{table}",
            ]
        )
        + "\n"
    )


def _latex(text: str) -> str:
    return "".join(LATEX.get(c, c if c.isprintable() else " ") for c in text)


def _markdown(text: str) -> str:
    """Text escaped so that Markdown shows it literally: no links, tags, emphasis or extra cells."""
    flat = "".join(c if c.isprintable() else " " for c in text)
    return "".join(
        "\\" + c if c in r"\`*_[]|#!" else {"<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(c, c) for c in flat
    )
