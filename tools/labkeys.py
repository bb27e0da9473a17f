"""From a key press to a changed picture: the tests ask whether it comes, the benchmark how soon."""

from __future__ import annotations

from collections.abc import Callable

from labserver import PATIENCE
from playwright.sync_api import Locator, Page

# Resolves with the milliseconds from the next key press, or choice in a menu, to the frame in which the picture is
# another one, and loaded. `shown` is a picture or what holds it: `interact` throws the old picture away. Without one,
# any other content counts, and whether it can be pressed.
ANSWER = """(shown, patience) => { window.answer = new Promise((resolve, reject) => {
  const never = () => reject(new Error(`the key changed nothing within ${patience} seconds`));
  const waiting = setTimeout(never, 1000 * patience);
  const picture = () => shown.tagName === 'IMG' ? shown : shown.querySelector('img');
  const content = () => picture() ? picture().src : `${shown.disabled} ${shown.innerHTML}`, before = content();
  const there = () => !picture() || picture().complete && picture().naturalWidth;
  const heard = new AbortController();
  const pressed = event => {
    heard.abort();
    const look = () => {
      if (content() === before || !there()) return requestAnimationFrame(look);
      clearTimeout(waiting);
      resolve(performance.now() - event.timeStamp);
    };
    requestAnimationFrame(look);
  };
  for (const kind of ['keydown', 'change'])
    document.addEventListener(kind, pressed, {capture: true, signal: heard.signal});
}); }"""


def press(page: Page, shown: Locator, key: str) -> float:
    """Press a key, wait for another picture, and return the milliseconds between. The control must have the focus.

    Raises playwright's Error: nothing changed.
    """
    return answer(page, shown, lambda: page.keyboard.press(key))


def answer(page: Page, shown: Locator, act: Callable[[], object]) -> float:
    """The same for what `act` does: it presses one key, or chooses from a menu."""
    shown.evaluate(ANSWER, PATIENCE)
    act()
    return float(page.evaluate("() => window.answer"))
