"""Fill the HTML templates of this package: every page is one file that needs nothing beside it.

Jinja2 escapes all text; style and script (page.css, page.js) are put inside the page, as are pictures. A page forbids
itself every request (Content-Security-Policy in base.html).
"""

from __future__ import annotations

import base64
import functools
import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from jinja2 import Environment


def render(template: str, **values: Any) -> str:
    """The template of that name, filled in; a value that it asks for and does not get is an error."""
    return _templates().get_template(template).render(**values)


def data_uri(image: UInt8[np.ndarray, "H W 3"], *, lossless: bool, max_width: int | None = None) -> str:
    """A picture inside the page: lossless WebP, or JPEG (quality 80) made no wider than `max_width`."""
    from PIL import Image

    picture, buffer = Image.fromarray(np.ascontiguousarray(image)), io.BytesIO()
    if max_width is not None and picture.width > max_width:
        picture = picture.resize((max_width, max(round(picture.height * max_width / picture.width), 1)))
    if lossless:
        picture.save(buffer, format="WEBP", lossless=True, quality=100, method=4)
    else:
        picture.save(buffer, format="JPEG", quality=80)
    return data_of(buffer.getvalue(), f"image/{'webp' if lossless else 'jpeg'}")


def data_of(content: bytes, mime: str) -> str:
    """The content of a file as an address inside the page."""
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"


@functools.cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("spikevrt.report", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
