"""Show a figure as a PNG that carries its own description."""

import base64
import io
from typing import Any

from matplotlib.figure import Figure


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG file's bytes, 100 pixels an inch."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=100)
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

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        png = base64.b64encode(self.png()).decode("ascii")
        return {"image/png": png, "text/plain": repr(self)}, {"image/png": {"alt": self.alt}}
