"""HTML that is escaped by construction: only what `element` has made is taken as it is.

A template engine would have to be told to escape, at every place, texts that strangers wrote.
Here a text can get into the page only through `element`, which escapes whatever is no `Html`.
"""

import unicodedata
from collections.abc import Iterable
from html import escape
from typing import TypeAlias

_VOID = {"meta", "br", "link"}
# Control characters that a page may have, and format characters that belong to words: joiners
# of Persian, Hindi and emoji.
_HARMLESS = {"\n", "\t", "\u200c", "\u200d"}
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


# What is longer gets room in a table, and is broken into lines.
_LONG = 24


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


Child: TypeAlias = "str | int | Iterable[Child] | None"


def element(tag: str, /, *children: Child, **attributes: str | int | bool | None) -> Html:
    """Return an element; what is no `Html` among its children and attributes is escaped.

    Args:
        children: Texts, elements, lists of them; None is nothing.
        attributes: ``class_`` is ``class``, ``aria_label`` is ``aria-label``; False and None
            leave one out, True has no value.
    """
    given = "".join(_attribute(key, value) for key, value in attributes.items())
    if tag in _VOID:
        return Html(f"<{tag}{given}>")
    return Html(f"<{tag}{given}>{joined(children)}</{tag}>")


def joined(children: Iterable[Child]) -> Html:
    """Return children one after the other, escaped where they are no `Html`."""
    return Html("".join(map(_child, children)))


def _child(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return str(child)
    if isinstance(child, str | int):
        return escape(str(child))
    return joined(child)


def _attribute(key: str, value: str | int | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'


def foreign(text: str, *, most: int = 120) -> Html:
    """Return what somebody else wrote: cut to a length, isolated, with nothing hidden in it.

    Characters that would turn the direction of the text around it, or that cannot be seen,
    are shown by their number.
    """
    cut = text if len(text) <= most else f"{text[: most - 1]}…"
    return element(
        "bdi",
        shown(cut),
        title=f"{len(text):,} characters" if cut != text else None,
        class_="long" if len(cut) > _LONG else None,
    )


def shown(text: str) -> str:
    """Return *text* with what cannot be seen, or could mislead, as ``\\u202e``."""
    return "".join(
        f"\\u{ord(one):04x}"
        if one not in _HARMLESS and unicodedata.category(one) in _INVISIBLE
        else one
        for one in text
    )
