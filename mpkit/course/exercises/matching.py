"""`matching`: judge a dict that gives each of several names one of several choices. As kind as it can be exact.

Only letters and digits are compared: case, blanks and punctuation are free, and mpkit.FP16 is as good as its name.
Told first are the names that still wait, then a choice that is not among the choices (it cannot be judged, so both
are "not yet"), then the first wrong choice, by its own message. No message says which choice is right.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mpkit.course.exercises.checker import Feedback, is_open, kind, not_yet, passed, wrong

Key = Mapping[str, tuple[str, Mapping[str, str]]]  # name -> its right choice, and what each wrong one hears


def matching(
    answer: Any, key: Key, choices: Sequence[str], *, each: str, choice: str, passes: str, waiting: str = ""
) -> Feedback:
    """Judge a learner's dict of name -> choice; None, ... and blank text wait. A name too many does no harm.

    Args:
        answer: what the learner passed.
        key: name -> (right choice, {wrong choice: message}), with every wrong choice.
        choices: all choices, in the order in which they are listed.
        each, choice: what one name and one choice are called: "patient", "cure".
        passes: what the right answer hears.
        waiting: how several open names are announced, with {names} or {count}. Default: "patients A, B still wait".
    """
    if not isinstance(answer, Mapping):
        name, (right, _) = next(iter(key.items()))
        example = f'{{"{name}": "{next(other for other in choices if other != right)}", …}}'
        return wrong(
            f"The answer is a dict with one {choice} a {each}, such as {example}. What came is {kind(answer)}."
        )
    names, texts = {_folded(name): name for name in key}, {_folded(text): text for text in choices}
    filled = [name for name in answer if _folded(answer[name])]
    # Last come the names that are spelled as in the exercise, so that they outdo another spelling of them.
    given = {names.get(_folded(name)): answer[name] for name in sorted(filled, key=lambda name: name in key)}
    if missing := [name for name in key if name not in given]:
        several = (waiting or f"{each}s {{names}} still wait").format(names=", ".join(missing), count=len(missing))
        who = several if len(missing) > 1 else f"{each} {missing[0]} still waits"
        # Here a name too many is mentioned, for it may be the one that waits, misspelled.
        unknown = ", ".join(repr(name) for name in answer if _folded(name) not in names)
        return not_yet(f"Not yet: {who}. {f'There is no {each} {unknown}.' if unknown else 'Replace the three dots.'}")
    for name in key:
        if _folded(given[name]) not in texts:
            known = f"is not one of the {choice}s: {'; '.join(choices)}."
            return not_yet(f"{each.capitalize()} {name}: {str(given[name])!r} {known}")
    for name, (right, messages) in key.items():
        if (chosen := texts[_folded(given[name])]) != right:
            return wrong(messages[chosen])
    return passed(passes)


def _folded(value: Any) -> str:
    """Its letters and digits in lower case; "" if it is not filled in."""
    return "" if is_open(value) else "".join(filter(str.isalnum, str(value).casefold()))
