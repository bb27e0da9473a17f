"""What `bench --browser` presses: every control of every panel of the lessons, each with its row.

A row names what it presses as the panel does: by a control's label, or by a button's text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Shown:
    """A panel, and the picture that is its peer: `count` axes, `height` pixels in all.

    `cell` is what makes the panel in the lesson, `label` a text that its output always has. `shown` is what answers: a
    picture, or what holds the words.
    """

    lesson: str
    name: str
    cell: str
    label: str
    peer: str
    count: int
    height: int
    shown: str = "img"


@dataclass(frozen=True)
class Turn:
    """One press of `control`: `place` takes the focus, and `text` if it is a field, then comes the key.

    Without a key `text` is chosen from a menu, for JupyterLab keeps some keys from it. `before` are buttons that are
    clicked first if they can be, `then` afterwards, so that nothing goes on beside the next press; `idle` is what
    must be there then. None of that is timed.
    """

    control: str
    place: str
    key: str = "Enter"
    text: str = ""
    before: tuple[str, ...] = ()
    then: tuple[str, ...] = ()
    idle: str = ""


@dataclass(frozen=True)
class Row:
    """The turns of one control, or of some alike, over and over; `shown` where it is not the panel's own.

    `lead`: pressed before all, so that the first turn changes something whatever was pressed before. `within_ms`: a
    bar of its own.
    """

    name: str
    turns: tuple[Turn, ...]
    lead: Turn | None = None
    shown: str = ""
    within_ms: float | None = None


def labelled(label: str, part: str) -> str:
    """The selector of a part of the control with that label."""
    return f".lm-Widget:has(> .widget-label:text-is({label!r})) {part}"


def slide(label: str, places: int) -> Row:
    """A slider: so many places up from its lower end, and down again."""
    press = Turn(label, labelled(label, ".noUi-handle"), "Home")
    keys = ("ArrowRight",) * places + ("ArrowLeft",) * places
    return Row(label, tuple(replace(press, key=key) for key in keys), press)


def _cycle(name: str, turns: list[Turn]) -> Row:
    return Row(name, tuple(turns), turns[-1])


def pick(label: str, *options: str) -> Row:
    """A row of buttons of which one is down, each in turn."""
    return _cycle(label, [Turn(label, labelled(label, f"button:text-is({one!r})")) for one in options])


def menu(label: str, *options: str) -> Row:
    """A menu."""
    return _cycle(label, [Turn(label, labelled(label, "select"), "", one) for one in options])


def write(label: str, *texts: str) -> Row:
    """A field."""
    return _cycle(label, [Turn(label, labelled(label, "input"), text=one) for one in texts])


def push(name: str, *texts: str) -> Row:
    """Buttons of which each leads to a place of its own."""
    return _cycle(name, [Turn(text, f"button:text-is({text!r})") for text in texts])


def toggle(name: str, *texts: str) -> Row:
    """Buttons, each pressed and pressed again; or one that does something each time."""
    return Row(name, tuple(Turn(text, f"button:text-is({text!r})") for text in texts for _ in range(2)))


def first(row: Row, *before: str) -> Row:
    """The row where these buttons are pressed first, as long as they are there."""
    return replace(row, turns=tuple(replace(turn, before=before) for turn in row.turns))


def after(row: Row, *before: str, shown: str = "", within_ms: float | None = None) -> Row:
    """The row where every turn comes after these buttons, and what goes on is stopped."""
    turns = tuple(replace(turn, then=("Stop",)) for turn in first(row, *before).turns)
    return replace(row, turns=turns, shown=shown, within_ms=within_ms)


def swept(row: Row) -> Row:
    """The row where each press starts a sweep: its first picture has a bar of its own, the next press comes after."""
    return replace(row, turns=tuple(replace(turn, idle=SWEPT) for turn in row.turns), within_ms=FIRST_MS)


def live(start: str, *before: str) -> tuple[Row, ...]:
    """The buttons of a training: its first picture, its bar, and how soon it pauses, goes on and stops."""
    pressed, running = toggle(start, start), (*before, start)
    pause = Turn("Pause", "button:text-matches('^(Pause|Resume)$')")
    stop = Turn("Stop", "button:text-is('Stop')", before=running)
    return (
        after(pressed, *before),
        replace(after(pressed, *before, shown=COUNT, within_ms=FIRST_MS), name=f"{start}, first words"),
        Row("Pause and Resume", (replace(pause, before=running), replace(pause, then=("Stop",))), shown=pause.place),
        Row("Stop", (stop,), shown=stop.place),
    )


FIRST_MS = 100.0  # of what answers a press that starts long work
COUNT = ".widget-hbox:has(> button:text-is('Stop')) > .widget-label"
SWEPT = ".widget-label:text-is('30 of 30 settings')"
MESSAGE, WORDS = (f".widget-html-content >> nth={place}" for place in (-3, -2))  # the last one names the controls
TABLE = ".widget-html-content:has(table)"
BITS = ("sign bit", *(f"exponent bit {n}" for n in range(5)), *(f"mantissa bit {n + 1}" for n in range(10)))
FORMATS = ("BF16", "TF32", "E5M2", "E4M3", "FP16")
RUNS = ("classifier", "autoencoder", "bad start", "falling loss", "made up: drifts")
RULES = ("no scaling", "static 2¹⁰", "torch", "apex-amp", "deepspeed", "fairseq", "megatron", "keras", "LogMax",
         "popart", "article", "article, scaled")  # fmt: skip
COMPETITORS = ("FP16, no scaling", "FP16, static 2¹⁰", "FP16, dynamic", "BF16", "article", "FP16 all, no scaling")
EXAMS = ("run it again · 1", "in FP32 · 2", "smaller scale · 1", "look at the data · 1", "tally the gradients · 1",
         "trace · 4")  # fmt: skip
DATA = "data: the batch itself is bad"
WORDS = ".widget-html-content[role='status']"
PATIENTS = (
    "5 · The loss is the same number at every step, to the last digit. Gradients are there, the optimizer steps.",
    "13 · I run the same batch through the same weights, with all seeds set, and get another loss each time. Is BF16 "
    "that noisy?",
    "1 · The training loss falls nicely. One step was skipped, as the scaler does. But evaluation says NaN.",
)

ROWS: dict[Shown, tuple[Row, ...]] = {
    Shown("00", "first look", "first_look()", "comes out as", "bits", 1, 200, TABLE): (slide("k", 24),),
    Shown("00", "doctor", "examined = doctor_panel()", "Emulated matmul", "bits", 1, 200): (
        Row("Examine again", (Turn("Examine again", "button", idle="button:enabled"),), None, "button", FIRST_MS),
    ),
    Shown("01", "bit explorer", "BitExplorer()", "toggle the bits of", "bits", 2, 440, TABLE): (
        push("examples", "0.1", "1/3", "2048+1", "65504", "65520", "1e-8", "inf"),
        write("number", "0.3", "2^-20", "1000"),
        toggle("next up and down", "▲ next up", "▼ next down"),
        Row("bits", tuple(Turn(bit, f"button[title^='{bit},']", "Space") for bit in BITS)),
        menu("toggle the bits of", "BF16", "FP32", "E4M3", "FP16"),
    ),
    Shown("02", "cast explorer", "CastExplorerPanel(", "too large →", "histograms", 2, 640): (
        pick("format", *FORMATS),
        pick("rounding", "zero", "up", "down", "stochastic", "nearest"),
        pick("too large →", "largest value", "Inf"),
        menu("values", "normal: mean 0, sd 1", "uniform from 0 to 1", "every size, 2⁻⁴⁰ to 2²⁰"),
    ),
    Shown("02", "stalling sum", "StallingSumPanel(", "additions", "lines", 1, 470): (
        slide("additions", 10),
        pick("format", *FORMATS),
        pick("how", "one by one in FP32", "one by one with Kahan", "in pairs", "one by one"),
        write("add", "0.1", "0.001", "0.3", "1"),
    ),
    Shown("03", "number line", "NumberLinePanel(", "keeper", "lines", 2, 560): (
        push("presets", "a small weight", "2048 : 1 in FP16", "Adam's step"),
        slide("update", 20),
        pick("format", "FP16", "E5M2", "E4M3", "BF16"),
        pick("keeper", "stochastic", "Kahan", "FP32 master", "nearest"),
        write("weight", "0.1", "0.3", "2^-3"),
    ),
    Shown("04", "gradient histogram", "GradientHistogramPanel(", "log2 loss scale", "histograms", 3, 560): (
        push("presets", "torch starts here: 2¹⁶", "too large: 2²⁸", "no scaling: 2⁰"),
        slide("log2 loss scale", 20),
        slide("training step", 4),
        pick("format", "BF16", "E5M2", "E4M3", "FP16"),
    ),
    Shown("05", "scaler race", "ScalerRacePanel(", "gradients of", "lines", 1, 560): (
        first(toggle("rules", *RULES), "more"),
        slide("initial scale", 11),
        slide("grow after", 8),
        slide("backoff", 4),
        pick("gradients of", *RUNS),
        *live("Train live", "bad start"),
    ),
    Shown("05", "settings sweep", "SettingsSweepPanel(", "recorded", "grid", 1, 420): (
        swept(slide("at overflow", 3)),
        swept(slide("growth", 3)),
        swept(pick("recorded", "autoencoder", "bad start", "falling loss", "made up: drifts", "classifier")),
    ),
    Shown("06", "precision race", "PrecisionRacePanel(", "against FP32", "lines", 3, 560): (
        *live("Start"),
        after(toggle("competitors", *COMPETITORS), "Start", shown=WORDS),
        after(pick("task", "classifier", "autoencoder", "tiny loss"), "Start", shown=WORDS),
        after(write("learning rate", "0.002", "0.003"), "Start", shown=MESSAGE),
    ),
    Shown("07", "speed lab", "SpeedLabPanel(", "matrix size", "lines", 1, 470): (
        push("presets", "misaligned", "too small", "launch-bound", "memory-bound", "sync every step",
             "at its best"),
        slide("matrix size", 9),
    ),
    Shown("07", "memory ledger", "MemoryLedgerPanel(", "parameters", "bars", 1, 400): (
        slide("parameters", 7),
        slide("activations for each", 9),
        pick("optimizer", "SGD", "Adam", "SGD, momentum"),
    ),
    Shown("08", "attention", "AttentionPanel(", "head size d", "histograms", 2, 500): (
        # First, for at a small spread all look alike; at the panel's own, two of the three do.
        pick("softmax", "in 16 bits, no max", "in 16 bits", "in 16 bits, no max", "in FP32"),
        pick("divide by √d", "before", "none", "after"),
        slide("head size d", 4),
        slide("spread of q and k", 10),
    ),
    Shown("09", "granularity", "GranularityPanel(", "one scale for", "grid", 2, 506): (
        push("presets", "MX, floor or up", "layer-norm gains collapse", "nearest or stochastic", "an outlier in INT8"),
        pick("values", "outlier ×30", "outlier ×30,000", "no outlier", "outlier ×1000"),
        pick("format", "INT4", "E4M3", "E2M3", "E2M1", "INT8"),
        pick("one scale for", "a row", "a column", "1×32", "1×16", "16×16", "all"),
        pick("scales", "power of 2, up", "power of 2, OCP's floor", "NVFP4's two levels", "FP32, exact"),
    ),
    Shown("09", "delayed race", "DelayedRacePanel(", "planted jump", "lines", 2, 524): (
        push("presets", "a margin takes the jump", "never forgets", "no jump, short memory", "too much room",
             "one step is clipped"),
        pick("tensor", "inputs", "weights", "gradients"),
        pick("planted jump", "none", "×4", "×64", "×16"),
        pick("history", "1", "4", "1,024", "16"),
        slide("margin", 9),
    ),
    Shown("10", "clinic", "ClinicPanel(device=lesson.device)", "patient", "lines", 2, 470): (
        menu("patient", *PATIENTS),
        replace(first(push("tests", *EXAMS, "show me"), "begin again"), shown=WORDS),
        Row("from the first test to the cure", (
            *push("test", "begin again", "look at the data · 1").turns, *menu("diagnosis", DATA).turns,
            *push("cures", "name it", "cure A", "cure B", "cure C").turns,
        ), menu("patient", PATIENTS[-1]).lead, WORDS),
    ),
    Shown("11", "rank simulator", "RankSimulatorPanel(", "how they agree", "grid", 2, 448): (
        pick("how they agree", "through the data", "GradScaler", "LossScaler, auto", "MAX of the flag",
             "test before the sum"),
        pick("Inf is born", "after the sum", "in local clipping", "in a shard, sharded first",
             "in a shard, replica first", "in the data"),
        slide("ranks", 6),
        pick("divide", "√N", "after", "before"),
        pick("sum in", "FP16", "BF16", "FP32"),
    ),
}  # fmt: skip


def every() -> Iterator[tuple[Shown, Row]]:
    """Each row with its panel, lesson by lesson."""
    for panel, rows in ROWS.items():
        for row in rows:
            yield panel, replace(row, shown=row.shown or panel.shown)
