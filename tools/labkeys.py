"""From a key press to a changed picture: the tests ask whether it comes, the benchmark how soon."""

from __future__ import annotations

from labserver import PATIENCE
from playwright.sync_api import Locator, Page

# Resolves with the milliseconds from the next key press to the frame in which the picture is another one, and loaded.
# `shown` is a picture or what holds it: `interact` throws the old picture away. Without one, any other content counts.
ANSWER = """(shown, patience) => { window.answer = new Promise((resolve, reject) => {
  const never = () => reject(new Error(`the key changed nothing within ${patience} seconds`));
  const waiting = setTimeout(never, 1000 * patience);
  const picture = () => shown.tagName === 'IMG' ? shown : shown.querySelector('img');
  const content = () => picture() ? picture().src : shown.innerHTML, before = content();
  const there = () => !picture() || picture().complete && picture().naturalWidth;
  document.addEventListener('keydown', pressed => {
    const look = () => {
      if (content() === before || !there()) return requestAnimationFrame(look);
      clearTimeout(waiting);
      resolve(performance.now() - pressed.timeStamp);
    };
    requestAnimationFrame(look);
  }, {once: true, capture: true});
}); }"""


def press(page: Page, shown: Locator, key: str) -> float:
    """Press a key, wait for another picture, and return the milliseconds between. The control must have the focus.

    Raises playwright's Error: nothing changed.
    """
    shown.evaluate(ANSWER, PATIENCE)
    page.keyboard.press(key)
    return float(page.evaluate("() => window.answer"))
