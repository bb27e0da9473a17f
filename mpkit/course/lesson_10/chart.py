"""What has been done with one patient: which tests, which guesses, and the points that are left."""

from dataclasses import dataclass, field

from mpkit.course.lesson_10.tests import TESTS

BUDGET = 12
WRONG_KIND, WRONG_CURE = 2, 1  # points
LEAST = 1  # for who names kind and cure in the end


@dataclass
class Chart:
    """One patient's chart.

    Attributes:
        tests: what was tested, in order, by the names of TESTS.
        wrong: kinds that were named and do not fit what was tested. `kind`: the one that is; None: not named yet.
        wrong_cures: places of cures that do not heal. `cured`: the right one was picked.
        told: `diagnose` was asked, so there are no points.
        reads_diagnosis: what it said is shown, and not what the tests said.
        said: the answer to the last guess.
    """

    tests: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    kind: str | None = None
    wrong_cures: list[int] = field(default_factory=list)
    cured: bool = False
    told: bool = False
    reads_diagnosis: bool = False
    said: str = ""

    @property
    def left(self) -> int:
        """Points that are left, as of now."""
        if self.told:
            return 0
        spent = sum(TESTS[test].cost for test in self.tests)
        left = BUDGET - spent - WRONG_KIND * len(self.wrong) - WRONG_CURE * len(self.wrong_cures)
        return max(left, LEAST)

    @property
    def earned(self) -> int:
        """Points for a patient that is cured."""
        return self.left if self.cured else 0
