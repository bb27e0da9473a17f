"""`python -m mpkit record-transformer`: transformers of BERT's and GPT-2's size, and the lesson's small ones, on a GPU.

What lesson 08 shows to those without a GPU is what this command wrote on one.
"""

import sys
from collections.abc import Sequence

from mpkit.course.record.character_models import MARGIN, MODELS, RUNS, train
from mpkit.course.record.command import arguments, finish, measure_only, recorder
from mpkit.course.record.processes import Figures, Gathered, Part, measure_here, merge
from mpkit.course.runs.transformer_rows import SIZES, WAYS, sizes, transformer_row

MODULE = "mpkit.course.record.transformer"


def _row(model: str, way: str) -> Part:
    return Part(lambda o: {"speed": {model: {way: transformer_row(model, way, o.seconds)}}}, long="compiled" in way)


def _run(model: str, run: str) -> Part:
    return Part(lambda o: train(model, run, o.steps), once=True, long=True)


PARTS: dict[str, Part] = {
    "sizes": Part(lambda _: {"sizes": sizes()}, once=True),
    **{f"speed: {model}, {way}": _row(model, way) for model in SIZES for way in WAYS},
    **{f"losses: {model}, {run}": _run(model, run) for model in MODELS for run in RUNS},
}


def main(argv: Sequence[str]) -> int:
    """Measure everything in processes of their own, and write the file."""
    parser = arguments("transformer", "record GPU figures for lesson 08", seconds=3.0)
    parser.add_argument("--steps", type=int, default=2000, help="steps of each character model; default 2000")
    chosen = parser.parse_args(argv)
    if chosen.part:
        return measure_here(PARTS, chosen)
    processes = recorder(parser, chosen, MODULE)
    options = ["--steps", str(chosen.steps), "--seconds", str(chosen.seconds)]
    if chosen.only:
        return measure_only(processes, PARTS, chosen.only, options)
    found = processes.gather(PARTS, options)
    figures: Figures = {"steps": chosen.steps, "margin": MARGIN}
    merge(figures, found.figures)
    return finish("transformer", argv, chosen, Gathered(figures, found.ranges, found.machine))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
