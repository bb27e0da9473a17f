"""What every panel is checked for in the browser: contrast and clipping."""

from __future__ import annotations

from playwright.sync_api import Locator

# WCAG 2.2, "relative luminance" and "contrast ratio", of a text's colour on all the fills behind it.
CONTRAST = """element => {
  const channels = color => { const [r, g, b, a = 1] = color.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const over = (top, below) => below.map((c, i) => i < 3 ? top[i] * top[3] + c * (1 - top[3]) : 1);
  const luminance = rgb => rgb.slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const fills = [];
  for (let e = element; e; e = e.parentElement) fills.unshift(channels(getComputedStyle(e).backgroundColor));
  const fill = fills.reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  const text = over(channels(getComputedStyle(element).color), fill);
  const [low, high] = [luminance(text), luminance(fill)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}"""
# What reaches beyond the output's width, or has less room than its text. (noUiSlider keeps helpers of zero size.)
CLIPPED = """output => {
  const area = output.getBoundingClientRect(), wrong = [], MARGIN = 2;  // of every widget, empty
  for (const e of output.querySelectorAll('label, button, select, img, .slider, .widget-readout, [role]')) {
    const box = e.getBoundingClientRect();
    if (!box.width || !box.height) continue;
    const name = e.innerText || e.className;
    if (box.left < area.left - MARGIN || box.right > area.right + MARGIN) wrong.push(`${name} reaches out`);
    if (e.matches('label, button, .widget-readout') && e.scrollWidth > e.clientWidth + 1) wrong.push(`${name} is cut`);
  }
  return wrong;
}"""


def contrasts(texts: dict[str, Locator]) -> dict[str, float]:
    """Contrast ratio of each named text to the fills behind it."""
    return {name: float(text.evaluate(CONTRAST)) for name, text in texts.items()}


def clipped(output: Locator) -> list[str]:
    """Complaints about parts of an output that reach out of it or have too little room; empty if all is well."""
    return list(output.evaluate(CLIPPED))
