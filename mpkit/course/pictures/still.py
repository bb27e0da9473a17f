"""Show a figure as a PNG that carries its own description."""

import base64
import io
import os
from typing import Any

from IPython.display import display
from matplotlib.figure import Figure

from mpkit.course.pictures.page import HIDE, TELL, about_png, described, one_page
from mpkit.course.pictures.style import DENSITY
from mpkit.course.pictures.words_fit import refuse_cut, refuse_smeared


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG file's bytes, 100 pixels of the page an inch.

    With MPKIT_STRICT=1 (the tests set it) words that are cut at an edge, or lie on each other, are a
    ValueError.
    """
    if os.environ.get("MPKIT_STRICT") == "1":
        refuse_cut(figure)
        refuse_smeared(figure)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=100 * DENSITY)
    return out.getvalue()


class StillPicture:
    """A figure for a notebook: PNG with alt text, and one line of plain text that is the same on every machine."""

    def __init__(self, figure: Figure, alt: str) -> None:
        if not alt.strip():
            raise ValueError("a picture needs alt text that says what it shows; pass alt='...'.")
        self.figure, self.alt = figure, alt

    def png(self) -> bytes:
        """The picture as PNG."""
        return to_png(self.figure)

    def __repr__(self) -> str:
        return "picture"

    def _ipython_display_(self) -> None:
        """Show it, and before it the script that gives it its alt text on JupyterLab's page."""
        if one_page():
            display({"text/html": HIDE + TELL}, raw=True)
        data, metadata = self._repr_mimebundle_()
        display(data, metadata=metadata, raw=True)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        png = described(self.png(), self.alt)
        data = {"image/png": base64.b64encode(png).decode("ascii"), "text/plain": repr(self)}
        return data, {"image/png": about_png(png, self.alt)}
