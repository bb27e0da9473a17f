"""A process group of threads for exercise 11.2. A call that would wait for ever is noticed without a clock."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

TOO_LONG = 10.0  # seconds after which a loop without an end is left alone


class Hang(BaseException):
    """Some ranks wait for one that will not come; no `except Exception` of a learner holds it up."""


class Mixed(BaseException):
    """Two ranks are in different calls."""


class Meeting:
    """Where ranks wait for each other, call by call, as in torch.distributed: the n-th calls of all belong together."""

    def __init__(self, ranks: int) -> None:
        self.ranks, self.news = ranks, threading.Condition()
        self.here: dict[int, tuple[str, float]] = {}
        self.gone: set[int] = set()
        self.round, self.dead = 0, ""
        self.answers: dict[int, list[float] | str] = {}

    def call(self, rank: int, verb: str, value: float) -> list[float]:
        """Hand in a value, wait for the others, and get everybody's. Hang, Mixed: that will never be."""
        with self.news:
            self.here[rank], mine = (verb, value), self.round
            if len(self.here) == self.ranks:
                self._meet(mine)
            self._look()
            while mine == self.round and not self.dead:
                self.news.wait()
            if mine == self.round:
                raise Hang(self.dead)
            answer = self.answers[mine]
            if isinstance(answer, str):
                raise Mixed(answer)
            return answer

    def leave(self, rank: int) -> None:
        """This rank is through with its work."""
        with self.news:
            self.gone.add(rank)
            self._look()

    def _meet(self, mine: int) -> None:
        verbs = {verb for verb, _ in self.here.values()}
        who = ", ".join(f"rank {rank} in {self.here[rank][0]}()" for rank in sorted(self.here))
        self.answers[mine] = [self.here[rank][1] for rank in range(self.ranks)] if len(verbs) == 1 else who
        self.here, self.round = {}, mine + 1
        self.news.notify_all()

    def _look(self) -> None:
        """Nobody is left who could come."""
        if self.here and self.gone and len(self.here) + len(self.gone) == self.ranks:
            waiting, through = (_named(sorted(some)) for some in (self.here, self.gone))
            verb = next(iter(self.here.values()))[0]
            self.dead = f"{waiting} wait{'s' * (len(self.here) == 1)} in {verb}() for {through}, which will not come"
            self.news.notify_all()


def _named(ranks: Sequence[int]) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks[:-1]))} and {ranks[-1]}"


@dataclass
class Group:
    """What one rank sees of the group. `steps`: the gradients that it stepped with."""

    rank: int
    meeting: Meeting
    steps: list[float] = field(default_factory=list)

    def mean(self, value: float) -> float:
        """The mean of everybody's values; waits for all ranks."""
        return sum(self.meeting.call(self.rank, "mean", float(value))) / self.meeting.ranks

    def any(self, flag: object) -> bool:
        """Whether any rank handed in True; waits for all ranks."""
        return any(self.meeting.call(self.rank, "any", float(bool(flag))))

    def step(self, gradient: float) -> None:
        """Step the optimizer of this rank; waits for nobody."""
        self.steps.append(float(gradient))


@dataclass(frozen=True)
class Outcome:
    """`steps` of each rank; `error`: the first that a rank raised, Hang or Mixed too; `endless`: one goes on and on."""

    steps: list[list[float]]
    error: BaseException | None
    endless: bool


def run_in_threads(work: Callable[[Group, list[float]], object], batches: Sequence[Sequence[float]]) -> Outcome:
    """Call `work(group, gradients)` for each rank in a thread of its own; `batches` has a rank's gradients a row."""
    meeting = Meeting(len(batches))
    errors: list[BaseException] = []
    groups = [Group(rank, meeting) for rank in range(len(batches))]

    def one(rank: int) -> None:
        try:
            work(groups[rank], list(batches[rank]))
        except BaseException as error:
            errors.append(error)
        finally:
            meeting.leave(rank)

    threads = [threading.Thread(target=one, args=(rank,), daemon=True) for rank in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TOO_LONG)
    own = [error for error in errors if not isinstance(error, Hang | Mixed)]  # what came first, not what follows
    return Outcome(
        [group.steps for group in groups], next(iter(own or errors), None), any(thread.is_alive() for thread in threads)
    )
