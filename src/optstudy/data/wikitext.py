"""Articles of a MediaWiki XML dump as plain prose, with the standard library's regular expressions.

Deterministic: the same dump gives the same bytes. Only ASCII character classes are used, so the Unicode
tables of the Python version do not matter.
"""

import html
import re
from collections.abc import Iterator

CLEANING = 1
"""Increased when a change here alters the resulting text."""

_ARTICLE = re.compile(r'<text xml:space="preserve">(.*?)</text>', re.S)
_REDIRECT = re.compile(r"[ \t\n]*#REDIRECT", re.I)
_INNERMOST = (
    re.compile(r"\{\{[^{}]*\}\}"),  # templates
    re.compile(r"\{\|[^{}]*\|\}"),  # tables
)
_DROPPED = re.compile(
    r"<!--.*?-->"
    r"|<(ref|math|gallery|timeline|table|pre|nowiki|code|div)\b[^<>]*(?<!/)>.*?</\1[ ]*>"
    r"|\[\[[ ]*:?(?:image|file|media|category|[a-z]{2,3}|[a-z]{2,3}-[a-z-]+|simple):[^\[\]]*"
    r"(?:\[\[[^\[\]]*\]\][^\[\]]*)*\]\]"
    r"|</?[a-z][^<>]*>"
    r"|__[A-Z]+__",
    re.S | re.I,
)
_LINK = re.compile(r"\[\[(?:[^\[\]|]*\|)*([^\[\]|]*)\]\]")
_EXTERNAL = re.compile(r"\[(?:https?|ftp|mailto):[^\[\] ]*[ ]?([^\[\]]*)\]")
_BARE_URL = re.compile(r"(?:https?|ftp)://[^ \t\n<>\[\]|]+")
_LINE_MARKS = re.compile(r"^(?:=+[ ]*(.*?)[ ]*=+|[*#:;]+[ ]*|-{4,})[ \t]*", re.M)
_TABLE_ROWS = re.compile(r"^[ \t]*(?:\{\||\|\}|\||!).*$", re.M)
_QUOTES = re.compile(r"'{2,}")
_BLANKS = re.compile(r"[ \t\xa0]+")
_BLANK_LINES = re.compile(r" *\n *(?:\n *)+")


def articles(dump: str) -> Iterator[str]:
    """Yield the prose of each complete article of ``dump``, except redirects and empty pages."""
    for match in _ARTICLE.finditer(dump):
        markup = html.unescape(html.unescape(match[1]))
        if _REDIRECT.match(markup) is None and (prose := clean(markup)):
            yield prose


def clean(markup: str) -> str:
    """Reduce wiki markup to prose: paragraphs separated by a blank line, headings and list items as lines."""
    text = _DROPPED.sub("", markup)
    for pattern in _INNERMOST:
        found = 1
        while found:
            text, found = pattern.subn("", text)
    text = _DROPPED.sub("", text)
    text = _LINK.sub(r"\1", text)
    text = _EXTERNAL.sub(r"\1", text)
    text = _BARE_URL.sub("", text)
    text = _TABLE_ROWS.sub("", text)
    text = _LINE_MARKS.sub(r"\1", text)
    text = _QUOTES.sub("", text)
    text = _BLANKS.sub(" ", text)
    return _BLANK_LINES.sub("\n\n", text).strip(" \n")
