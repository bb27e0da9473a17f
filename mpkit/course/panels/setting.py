"""`Setting`: one line of a panel's class makes a control, reads it, sets it, and refuses what it does not offer."""

from collections.abc import Callable, Collection, Iterable
from numbers import Real
from typing import Any, Generic, Self, TypeVar, overload

from mpkit import FloatFormat
from mpkit.course.panels.controls import Maker, Toggles
from mpkit.course.read_number import read_number
from mpkit.formats import require_format

OWN = "own"  # held by a control whose setting is None: a SelectionSlider cannot hold None

T = TypeVar("T")


def offered(name: str, value: Any, values: Iterable[Any], use: str = "") -> Any:
    """`value`, if it is one of `values`. ValueError: it is not; the text calls it `name` and says what to `use`."""
    values = tuple(values)
    if value not in values:
        use = use or f"one of {', '.join(map(_spelled, values))}"
        raise ValueError(f"{name} {_spelled(value)} is not in this panel; use {use}.")
    return value


def _spelled(value: object) -> str:
    return str(value) if isinstance(value, FloatFormat) else repr(value)


class Setting(Generic[T]):
    """What is chosen from `values`, as an attribute that can be read and set. Its control is in `panel.controls`.

    A subclass says in `_held` what the control holds for a value, and in `_meant` the reverse.

    Args:
        values: what is offered, or a function of the panel that tells it.
        control: makes the widget; see `mpkit.course.panels.controls`.
        start: the first value (default: the first of `values`).
        doc: what the setting is, for `help`.
        text: value → its name on the control.
        use: what an error offers instead of a list of the values.
    """

    def __init__(
        self, values: Iterable[T] | Callable[[Any], Iterable[T]], control: Maker, start: T | None = None, *,
        doc: str, text: Callable[[Any], str] = str, use: str = "",
    ) -> None:  # fmt: skip
        self._values, self._control, self._start, self._text, self._use = values, control, start, text, use
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, panel: None, owner: type) -> Self: ...
    @overload
    def __get__(self, panel: object, owner: type) -> T: ...
    def __get__(self, panel: Any, owner: type) -> Self | T:
        return self if panel is None else self._meant(panel, panel.controls[self.name].value)

    def __set__(self, panel: Any, value: T) -> None:
        panel.controls[self.name].value = self._held(panel, value)

    def values(self, panel: Any) -> tuple[T, ...]:
        """What the panel offers."""
        return tuple(self._values(panel) if callable(self._values) else self._values)

    def _held(self, panel: Any, value: Any) -> Any:
        """What the control holds when the setting is `value`. ValueError: the panel does not offer it."""
        return offered(self.name, value, self.values(panel), self._use)

    def _meant(self, panel: Any, held: Any) -> Any:
        """The setting when the control holds `held`."""
        return held

    def _options(self, panel: Any) -> list[tuple[str, Any]]:
        """The control's names and what it holds for each."""
        return [(self._text(value), self._held(panel, value)) for value in self.values(panel)]

    def make(self, panel: Any) -> Any:
        """A new control."""
        options = self._options(panel)
        return self._control(options, options[0][1] if self._start is None else self._held(panel, self._start))


class FormatSetting(Setting[FloatFormat]):
    """A format; the control holds its name. Another format of that name is refused, a non-format is a TypeError."""

    def _held(self, panel: Any, value: Any) -> Any:
        return super()._held(panel, require_format(value)).name

    def _meant(self, panel: Any, held: Any) -> Any:
        return next(fmt for fmt in self.values(panel) if fmt.name == held)


class OwnSetting(Setting[T | None]):
    """A value, or None: what is set keeps its own. The control says "its own"."""

    def _held(self, panel: Any, value: Any) -> Any:
        return OWN if value is None else super()._held(panel, value)

    def _meant(self, panel: Any, held: Any) -> Any:
        return None if held == OWN else held

    def _options(self, panel: Any) -> list[tuple[str, Any]]:
        return [("its own", OWN), *super()._options(panel)]


class TypedNumber(Setting[float]):
    """A number in a text field. Reading raises ValueError if it is none; `check(panel, value)` may refuse one."""

    def __init__(
        self, control: Maker, start: float, *, doc: str, check: Callable[[Any, float], object] = lambda _, __: None
    ) -> None:
        super().__init__((), control, start, doc=doc)
        self._check = check

    def _held(self, panel: Any, value: Any) -> Any:
        """The number in six digits, or in as many as it takes to give it back. TypeError: it is no number."""
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{self.name} is a number, but {_spelled(value)} ({type(value).__name__}) came.")
        if panel is not None:
            self._check(panel, float(value))
        return f"{value:.6g}" if float(f"{value:.6g}") == value else f"{value:.17g}"

    def _meant(self, panel: Any, held: Any) -> Any:
        return read_number(held)

    def make(self, panel: Any) -> Any:
        """A new field; its first value is not checked, for other controls may not be there yet."""
        return self._control([], self._held(None, self._start))


class Several(Setting[tuple[str, ...]]):
    """Some of the names of a row of toggle buttons, in their order. `tooltip`, `first`, `room`: as for `Toggles`."""

    def __init__(
        self, names: Iterable[str], start: Iterable[str], *, doc: str, label: str = "",
        tooltip: Callable[[str], str] = lambda name: "", first: int | None = None,
        room: int | None = None,
    ) -> None:  # fmt: skip
        self.names = tuple(names)
        more = (tooltip, label, first, room)
        super().__init__((), lambda _, value: Toggles(self.names, value, *more), tuple(start), doc=doc)

    def _held(self, panel: Any, value: Any) -> Any:
        """The names, each once. ValueError: the panel has no such button. TypeError: they are not several names."""
        if isinstance(value, str) or not isinstance(value, Collection):
            raise TypeError(f"{self.name} are several names, such as {self.names[:2]!r}, but {value!r} came.")
        for name in value:
            offered(self.name, name, self.names, f"some of {', '.join(map(repr, self.names))}")
        return tuple(name for name in self.names if name in value)


def make_controls(panel: object) -> dict[str, Any]:
    """A control for each setting of the panel's class, by name."""
    settings = {name: one for kind in reversed(type(panel).__mro__) for name, one in vars(kind).items()}
    return {name: one.make(panel) for name, one in settings.items() if isinstance(one, Setting)}
