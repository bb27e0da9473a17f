"""Names at the ends of curves, each in free space; a name that finds none is left out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mpkit.course.pictures.canvas import font

SIZE = 12  # pixels, as high as the words are
APART = 16  # pixels: curves of one kind that end closer share a label
CLEAR = 5  # pixels between words and curves
FURTHEST = 44  # pixels from the end of a curve to its name


@dataclass(frozen=True)
class Label:
    """Words whose right end and middle lie at `place`, in pixels."""

    words: str
    place: tuple[float, float]


def groups(ends: Mapping[str, float], kinds: Mapping[str, str]) -> list[list[str]]:
    """Groups from top to bottom: neighbours of one kind that end close to each other, in the order of `ends`."""
    found: list[list[str]] = []
    for name in sorted(ends, key=lambda name: (ends[name], kinds[name])):
        last = found[-1][-1] if found else ""
        if last and kinds[name] == kinds[last] and ends[name] - ends[last] < APART:
            found[-1].append(name)
        else:
            found.append([name])
    return [[name for name in ends if name in group] for group in found]


def labels(
    curves: Mapping[str, np.ndarray], named: Sequence[tuple[Sequence[str], str]], room: tuple[float, float]
) -> Iterator[Label]:
    """A label for each of `named`, names and their words, that has a place between the heights of `room`.

    `curves`: (n, 2) pixels of each name, from left to right.
    """
    taken = [np.column_stack([curve[:-1], curve[1:]]) for curve in curves.values()]  # x, y, next x, next y
    ends = {name: float(curve[-1, 1]) for name, curve in curves.items()}
    for names, words in named:
        last = names is named[-1][0]
        right = max(curve[-1, 0] for curve in curves.values()) - 14
        left = right - font(SIZE, bold=True).getlength(words)
        for y in _places([ends[name] for name in names], room, last):
            nearest = min(ends, key=lambda name: abs(ends[name] - y))
            box = (left, y - SIZE / 2, right, y + SIZE / 2)
            if nearest in names and not any(_on(lines, box) for lines in taken):
                taken.append(np.array([[left, y, right, y]]))
                yield Label(words, (right, y))
                break


def _places(ends: Sequence[float], room: tuple[float, float], below: bool) -> list[float]:
    """Heights above and below these ends, the nearest first; of two as near, the one on the side that is asked for."""
    sides = ((max(ends), 1), (min(ends), -1))
    reach = range(SIZE // 2 + CLEAR, FURTHEST)
    places = [end + side * off for off in reach for end, side in (sides if below else sides[::-1])]
    return [y for y in places if room[0] + SIZE / 2 <= y <= room[1] - SIZE / 2]


def _on(lines: np.ndarray, box: tuple[float, float, float, float]) -> bool:
    """Whether one of these lines comes near a box (left, top, right, bottom)."""
    x, y, next_x, next_y = lines.T
    beside = (next_x < box[0] - CLEAR) | (x > box[2] + CLEAR)
    beyond = (np.maximum(y, next_y) < box[1] - CLEAR) | (np.minimum(y, next_y) > box[3] + CLEAR)
    return bool((~beside & ~beyond).any())
