"""Builds HTML and SVG from strings: what is not markup already is escaped.

The result is well-formed XML, too, so that a test can read it with a strict parser.
"""

import base64
import html
import io
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_VOID = {"br", "img", "meta"}
SCROLLS = {"tabindex": 0, "role": "region"}  # what scrolls by itself can be reached by keyboard
# Characters that neither HTML nor XML allows; a damaged file may hold them.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")


class Markup(str):
    """Text that is HTML already; any other text is escaped where it is put into an element."""

    __slots__ = ()


def text(value: object) -> Markup:
    """Escape what a value says, unless it is markup."""
    if isinstance(value, Markup):
        return value
    plain = str(value).encode("utf-8", "replace").decode("utf-8")
    return Markup(html.escape(_FORBIDDEN.sub("\ufffd", plain)))


def join(parts: Iterable[object], between: str = "") -> Markup:
    """Put parts one after another."""
    return Markup(between.join(text(part) for part in parts))


def element(name: str, *children: object, attributes: Mapping[str, object] | None = None) -> Markup:
    """Build an element.

    Args:
        name: Of the element, with its classes behind dots: ``td.number``.
        *children: Elements, and text, which is escaped.
        attributes: Name -> value, escaped.
    """
    name, *classes = name.split(".")
    pairs = dict(attributes or {})
    if classes:
        pairs = {"class": " ".join(classes), **pairs}
    inside = "".join(f' {key}="{text(value)}"' for key, value in pairs.items())
    if name in _VOID:
        return Markup(f"<{name}{inside} />")
    return Markup(f"<{name}{inside}>{join(children)}</{name}>")


def picture(pixels: NDArray[np.uint8], description: str) -> Markup:
    """Embed an image (H,W,3) as it is.

    Args:
        pixels: The image.
        description: What it shows, for those who cannot see it.
    """
    height, width = pixels.shape[:2]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return png(buffer.getvalue(), (width, height), description)


def png(contents: bytes, size: tuple[int, int], description: str) -> Markup:
    """Embed the contents of a PNG file of so many pixels (width, height)."""
    data = base64.b64encode(contents).decode("ascii")
    attributes = {
        "src": f"data:image/png;base64,{data}",
        "alt": description,
        "width": size[0],
        "height": size[1],
    }
    return element("img", attributes=attributes)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Markup:
    """Build a table that scrolls by itself where it is too wide.

    Args:
        head: Heading of each column.
        rows: As many cells each; the first names the line.
    """
    headings = [element("th", name, attributes={"scope": "col"}) for name in head]
    lines = [
        element(
            "tr",
            element("th", first, attributes={"scope": "row"}),
            *(element("td", cell) for cell in rest),
        )
        for first, *rest in rows
    ]
    inside = element("table", element("thead", element("tr", *headings)), element("tbody", *lines))
    return element("div.scroll", inside, attributes=SCROLLS)


def folded(summary: object, *children: object) -> Markup:
    """Build a part that is closed until somebody opens it."""
    return element("details", element("summary", summary), *children)


def facts(pairs: Iterable[tuple[str, object]]) -> Markup:
    """Build a list of names and what they are."""
    parts = [element("div", element("dt", name), element("dd", value)) for name, value in pairs]
    return element("dl", *parts)


def figure(title: str, note: str, *children: object) -> Markup:
    """Put a title above a drawing."""
    said = element("figcaption", title, element("small", note))
    return element("figure", said, join(children))
