"""A verdict on one of the article's claims, drawn from what the lesson's cells measured."""

from collections.abc import Mapping
from dataclasses import dataclass

from mpkit.course import markup

# How the article's claim comes off → the accent of the card. What is not decided is plain.
ARTICLE = {"holds": "good", "holds in part": "note", "does not hold": "bad"}

# Above the controls. They have no mark of their own, as long as they answer as they must.
CONTROLS = "Here the same tests must say no:"


@dataclass(frozen=True)
class Verdict:
    """A claim, what is concluded if all of the evidence came out as expected, the evidence, and its controls.

    A control is a run that was made bad on purpose and must fail the test that the evidence passed: else the test could
    not have found anything, and the claim stays open.
    """

    claim: str
    conclusion: str
    evidence: Mapping[str, bool]
    controls: Mapping[str, bool]
    article: str

    @property
    def holds(self) -> bool:
        """True if every piece of evidence came out as the conclusion needs it, and every control failed its test."""
        return bool(self.evidence) and all(self.evidence.values()) and all(self.controls.values())

    def __repr__(self) -> str:
        controls = [CONTROLS, *(f"  {row}" for row in self._answers())] if self.controls else []
        return "\n  ".join([self._headline(), *self._rows(), *controls])

    def _repr_html_(self) -> str:
        rows, answers = (
            "".join(f"<li style='list-style:none'>{markup.escape(row)}</li>" for row in each)
            for each in (self._rows(), self._answers())
        )
        stands = f"the article's claim {self.article}" if self.holds else "open"
        inner = (
            f"<b>{markup.escape(self._headline())}</b> <span style='color:{markup.FAINT}'>({stands})</span>"
            f"<ul style='margin:2px 0;padding-left:8px'>{rows}</ul>"
        )
        if self.controls:
            inner += (
                f"<div style='margin:4px 0 0;padding-left:8px;color:{markup.FAINT}'>{CONTROLS}"
                f"<ul style='margin:0;padding-left:20px'>{answers}</ul></div>"
            )
        return markup.card(inner, ARTICLE[self.article] if self.holds else "plain")

    def _rows(self) -> list[str]:
        return [f"{'✓' if found else '✗'} {what}" for what, found in self.evidence.items()]

    def _answers(self) -> list[str]:
        """The controls as questions: a false sentence beside a tick would be read as true."""
        said = {True: "No.", False: "✗ Yes: so this test shows nothing."}
        return [f"{what}? {said[failed]}" for what, failed in self.controls.items()]

    def _headline(self) -> str:
        return f"{self.claim}: {self.conclusion if self.holds else 'this run does not decide it'}"


def verdict(
    claim: str, conclusion: str, evidence: Mapping[str, bool], controls: Mapping[str, bool] | None = None, *,
    article: str,
) -> Verdict:  # fmt: skip
    """Judge a claim such as "C05".

    Args:
        claim: the claim's id.
        conclusion: what is concluded if every piece of evidence is True.
        evidence: sentence → whether it was measured to be so.
        controls: a bad run and the test that it must fail → whether it failed. "Equal", "within" and "as good as" need
            one.
        article: how its claim comes off if so: "holds", "holds in part" or "does not hold". The card has that colour.

    Raises:
        ValueError: there is no evidence, or no such `article`.
        TypeError: something is neither True nor False.
    """
    if not evidence:
        raise ValueError(f"a verdict on {claim} needs evidence: pass what was measured, sentence → True or False.")
    if article not in ARTICLE:
        raise ValueError(
            f"a verdict on {claim} needs article= one of {', '.join(map(repr, ARTICLE))}, not {article!r}."
        )
    for what, value in [*evidence.items(), *(controls or {}).items()]:
        if "bool" not in str(getattr(value, "dtype", type(value).__name__)):
            raise TypeError(f"a verdict on {claim} needs True or False, but {value!r} came for: {what}.")
    found, failed = ({what: bool(value) for what, value in rows.items()} for rows in (evidence, controls or {}))
    return Verdict(claim, conclusion, found, failed, article)
