"""A verdict on one of the article's claims, drawn from what the lesson's cells measured."""

from collections.abc import Mapping
from dataclasses import dataclass

from mpkit.course import markup


@dataclass(frozen=True)
class Verdict:
    """A claim, the sentence that is concluded if all of the evidence came out as expected, and the evidence."""

    claim: str
    conclusion: str
    evidence: Mapping[str, bool]

    @property
    def holds(self) -> bool:
        """True if every piece of evidence came out as the conclusion needs it."""
        return bool(self.evidence) and all(self.evidence.values())

    def __repr__(self) -> str:
        return "\n  ".join([self._headline(), *self._rows()])

    def _repr_html_(self) -> str:
        rows = "".join(f"<li style='list-style:none'>{markup.escape(row)}</li>" for row in self._rows())
        inner = f"<b>{markup.escape(self._headline())}</b><ul style='margin:2px 0;padding-left:8px'>{rows}</ul>"
        return markup.card(inner, "good" if self.holds else "bad")

    def _rows(self) -> list[str]:
        return [f"{'✓' if found else '✗'} {what}" for what, found in self.evidence.items()]

    def _headline(self) -> str:
        return f"{self.claim}: {self.conclusion if self.holds else 'this run does not decide it'}"


def verdict(claim: str, conclusion: str, evidence: Mapping[str, bool]) -> Verdict:
    """Judge a claim such as "C05".

    Args:
        claim: the claim's id.
        conclusion: what is concluded if every piece of evidence is True.
        evidence: sentence → whether it was measured to be so.

    Raises:
        ValueError: there is no evidence.
    """
    if not evidence:
        raise ValueError(f"a verdict on {claim} needs evidence: pass what was measured, sentence → True or False.")
    return Verdict(claim, conclusion, {what: bool(found) for what, found in evidence.items()})
