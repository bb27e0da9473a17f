"""A picture on a notebook's page: its size there, and its description for those who do not see it.

JupyterLab (4.6) shows an image of an output without the description that stands beside it in the notebook. nbconvert
uses that one. An <img> of our own in HTML would have its name everywhere, but nbval compares HTML letter by letter:
a PNG differs with the fonts and the compression of a machine, its description with the numbers of a run. So the PNG
itself carries its description, and a script that is always the same reads it there. JupyterLab runs it in every
notebook that somebody ran or saved; in one that was only fetched, pictures have no name before Run.
"""

import os
import struct
import zlib
from typing import Any

from IPython.core.getipython import get_ipython

from mpkit.course.pictures.style import DENSITY

_HEADER = 33  # bytes: signature and IHDR (PNG specification, sections 5.2 and 11.2.1)
_KEY = b"Description\0\0\0\0\0"  # a keyword of iTXt; not compressed; no language (section 11.3.3.4)
_OUTPUT = ".jp-OutputArea-child"  # one output of a cell, with its prompt
_SAYS = f"{_OUTPUT}:has(> .jp-OutputArea-output > .mpkit-alt)"
HIDE = f'<style class="mpkit-alt">{_SAYS} {{ display: none; }}</style>'
# Gives each image after such a script its description. One timer for all: an image comes later than its script.
TELL = (
    """<script class="mpkit-alt">(() => {
const about = image => {
  const png = Uint8Array.from(atob(image.src.split(',')[1].slice(0, 40000)), c => c.charCodeAt(0));
  const size = new DataView(png.buffer).getUint32(HEADER), text = new TextDecoder();
  return text.decode(png.slice(NAME, NAME + 15)) === 'iTXtDescription' && text.decode(png.slice(TEXT, NAME + 4 + size));
};
const tell = tries => {
  for (const image of document.querySelectorAll("SAYS + CHILD img[src^='data:image/png']:not([alt])")) {
    const said = about(image);
    if (said) image.alt = said;
  }
  if (tries) window.mpkitAlt = setTimeout(tell, 100, tries - 1);
};
clearTimeout(window.mpkitAlt);
tell(50);
})()</script>""".replace("SAYS", _SAYS)
    .replace("CHILD", _OUTPUT)
    .replace("HEADER", str(_HEADER))
    .replace("NAME", str(_HEADER + 4))
    .replace("TEXT", str(_HEADER + 8 + len(_KEY)))
    .replace("\n", " ")  # a line of the notebook's file
)


def described(png: bytes, alt: str) -> bytes:
    """The same picture with its description inside."""
    body = b"iTXt" + _KEY + alt.encode()
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:_HEADER] + chunk + png[_HEADER:]


def about_png(png: bytes, alt: str) -> dict[str, Any]:
    """What a notebook keeps beside a PNG of ours: its description, and its size on the page in pixels."""
    width, height = struct.unpack(">II", png[16:24])  # of the header (PNG specification, section 11.2.1)
    return {"alt": alt, "width": width // DENSITY, "height": height // DENSITY}


def one_page() -> bool:
    """Whether the front end is JupyterLab, Notebook 7 or something that treats their pages as they do."""
    shell = get_ipython()
    names = {} if shell is None else shell.user_ns
    code = "__vsc_ipynb_file__" in names or {"VSCODE_PID", "VSCODE_CWD"} & set(os.environ)
    return not (code or "google.colab" in type(shell).__module__)
