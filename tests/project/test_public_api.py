"""The shape of the package: public names, what an import costs, sizes, and imports that only go down."""

from __future__ import annotations

import ast
import graphlib
import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import mpkit

PACKAGE = Path(mpkit.__file__).parent
MODULES = {
    ".".join(("mpkit", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
PUBLIC = {
    "BF16", "E2M1", "E2M3", "E3M2", "E4M3", "E5M2", "FP16", "FP32", "TF32", "FloatFormat", "cast",
    "cast_floating", "fake_cast", "tally",
    "found_inf", "RangeReport", "ExponentHistogram", "trace", "Meter", "Policy", "optim", "scaling", "NoScaling",
    "StaticScale", "DynamicScale", "LossScaler", "StepResult", "fit", "StepRecord", "start",
    "Batches", "CapturedStep", "scaled", "scaled_cast", "Diagnosis", "diagnose", "diagnose_checkpoint", "guard",
}  # fmt: skip

# Which rooms a module may import from; within its own room it may import anything.
LIBRARY = frozenset(
    "bit_fields formats rounding casting extremes overflow histogram trees unwatched hook timer "
    "scaled scaling policy optim tracing training diagnosis processes".split()
)
SHARED = frozenset(
    "start device gpu table markup read_number arithmetic nets runs ranks recorded robustness doctor clinic pictures "
    "panels exercises".split()
)
HEAVY = ("matplotlib", "ipywidgets", "IPython", "sklearn", "PIL")


# ---- names ----


def exported(module: ModuleType) -> set[str]:
    """What `from mpkit import x as x` re-exports."""
    froms = [node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.ImportFrom)]
    return {alias.asname for node in froms for alias in node.names if alias.asname is not None}


def test_the_public_names_are_these() -> None:
    assert exported(mpkit) == PUBLIC
    assert all(hasattr(mpkit, name) for name in PUBLIC)
    assert mpkit.__version__.count(".") == 2


def undocumented(names: dict[str, object]) -> list[str]:
    """Names without a docstring: functions, modules, classes and the public methods and properties of classes."""
    missing = []
    for name, value in names.items():
        own = value if isinstance(value, type | ModuleType) or callable(value) else type(value)
        if not (getattr(own, "__doc__", None) or "").strip():
            missing.append(name)
        if isinstance(own, type) and own.__module__.startswith("mpkit"):
            members = {k: v for k, v in vars(own).items() if not k.startswith("_")}
            checked = {
                k: v for k, v in members.items() if inspect.isfunction(v) or isinstance(v, property | staticmethod)
            }
            missing += [f"{name}.{k}" for k, v in checked.items() if not (v.__doc__ or "").strip()]
    return missing


def test_every_public_name_has_a_docstring() -> None:
    assert undocumented({name: getattr(mpkit, name) for name in PUBLIC}) == []
    assert (mpkit.__doc__ or "").startswith("mpkit: ")


def test_that_check_sees_what_is_missing() -> None:
    def silent() -> None: ...

    class Half:
        """Says something."""

        def method(self) -> None: ...

    Half.__module__ = "mpkit.test"
    assert undocumented({"silent": silent, "Half": Half}) == ["silent", "Half.method"]


# ---- imports ----


def heavy_modules_after(code: str) -> list[str]:
    """Which of the heavy packages a fresh Python has loaded after running `code`."""
    tell = f"import sys, json; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{tell}"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


def shadowed(package: str, files: set[str]) -> set[str]:
    """Names that a package exports and one of its files has too: once that file is imported, it is what the name means.

    A package may export a function from the file of its name: importing that file again changes nothing.
    """
    exported = vars(importlib.import_module(package))
    own = {name for name in files & exported.keys() if not inspect.ismodule(exported[name])}
    return {name for name in own if getattr(exported[name], "__module__", "") != f"{package}.{name}"}


@pytest.mark.parametrize("package", sorted({name.rpartition(".")[0] for name in MODULES} - {""}))
def test_no_file_takes_the_place_of_a_name(package: str) -> None:
    files = {name.rpartition(".")[2] for name in MODULES if name.rpartition(".")[0] == package}
    assert shadowed(package, files) == set()


def test_that_a_shadow_is_seen() -> None:
    assert shadowed("mpkit.course.lesson_04", {"quiz", "deep"}) == {"quiz"}


def test_importing_mpkit_and_its_library_is_light() -> None:
    library = [name for name in MODULES if room(name) == "library"]
    assert heavy_modules_after("import mpkit; " + "; ".join(f"import {name}" for name in library)) == []


def test_the_course_is_loaded_when_a_lesson_starts() -> None:
    tell = "print([name for name in sys.modules if name.startswith('mpkit.course')])"
    done = subprocess.run([sys.executable, "-c", f"import sys, mpkit; {tell}"], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
    assert "course" in mpkit.start.__module__
    with pytest.raises(AttributeError, match="module 'mpkit' has no attribute 'strat'"):
        mpkit.strat  # noqa: B018


def test_that_check_would_see_each_of_them() -> None:
    seen = heavy_modules_after(
        "import mpkit.course.pictures.style, mpkit.course.pictures.still, mpkit.course.panels.panel, sklearn, PIL"
    )
    assert sorted(seen) == sorted(HEAVY)


def imports_of(source: str) -> set[str]:
    """The mpkit modules that a file imports, at its top or inside its functions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in full}
    return {name for name in found if name in MODULES}


def room(module: str) -> str:
    """Where a module lives: library, bench, shared (what lessons share), lesson_NN, record, main, or ""."""
    first, *rest = module.split(".")[1:] or ["__init__"]
    if first != "course":
        own = {"bench": "bench", "__main__": "main"}
        return "library" if first in LIBRARY | {"__init__"} else own.get(first, "")
    if not rest or rest[0] in SHARED:
        return "shared"
    return rest[0] if rest[0] == "record" or rest[0].startswith("lesson_") else ""


def allowed(module: str, other: str) -> bool:
    """The rule of imports.

    The library imports neither course nor bench. What lessons share imports the library. A lesson imports the library
    and what is shared, never another lesson; record the same. bench imports the library and course/nets;
    only `__main__` may import all. (`mpkit.start` is the course's, loaded at the call; a test of its own sees to that.)
    """
    here, there = room(module), room(other)
    if here in ("main", there) or (module, other) == ("mpkit", "mpkit.course.start"):
        return True
    if here == "bench":
        return there == "library" or other.startswith("mpkit.course.nets")
    return there == "library" if here in ("library", "shared") else there in ("library", "shared")


def wrong_way(module: str, imported: set[str]) -> list[str]:
    """Imports of a module that the rule forbids."""
    return [f"{module} imports {other}" for other in sorted(imported) if not allowed(module, other)]


GRAPH = {name: imports_of(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def test_every_module_has_its_room() -> None:
    assert [name for name in MODULES if not room(name)] == []
    rooms = {room(name) for name in MODULES}
    assert {"library", "shared", "record", "bench", "main", "lesson_00", "lesson_08"} <= rooms
    assert all((PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir() for name in LIBRARY)


def test_imports_keep_the_rule() -> None:
    assert [line for name in MODULES for line in wrong_way(name, GRAPH[name])] == []


def test_no_module_imports_itself_in_a_circle() -> None:
    assert list(graphlib.TopologicalSorter(GRAPH).static_order())[-1] is not None


@pytest.mark.parametrize(
    ("module", "other", "verdict"),
    [
        ("mpkit.casting", "mpkit.policy.policy", True),  # circles inside the library have a test of their own
        ("mpkit.casting", "mpkit.course.markup", False),
        ("mpkit.casting", "mpkit.bench.table", False),
        ("mpkit.course.runs.experiments", "mpkit.training.loop", True),
        ("mpkit.course.runs.experiments", "mpkit.course.lesson_04", False),
        ("mpkit.course.lesson_04", "mpkit.course.runs.experiments", True),
        ("mpkit.course.lesson_04", "mpkit.course.lesson_05.rule_race", False),
        ("mpkit.course.lesson_04", "mpkit.course.record.speed", False),
        ("mpkit.course.lesson_04.exercises", "mpkit.course.lesson_04.words", True),
        ("mpkit.course.record.speed", "mpkit.course.runs.timing", True),
        ("mpkit.course.record.speed", "mpkit.course.lesson_07", False),
        ("mpkit.course.record.speed", "mpkit.bench.table", False),
        ("mpkit.bench.gpu_steps", "mpkit.course.nets.resnet", True),
        ("mpkit.bench.gpu_steps", "mpkit.course.runs.timing", False),
        ("mpkit.__main__", "mpkit.course.record.speed", True),
    ],
)
def test_the_rule_of_imports(module: str, other: str, verdict: bool) -> None:
    assert allowed(module, other) is verdict


def test_those_checks_can_fail_too() -> None:
    inside = "    from mpkit.course.pictures import style\n    import mpkit.formats\n"
    source = f"from mpkit import casting\ndef f():\n{inside}"
    assert imports_of(source) == {"mpkit.casting", "mpkit.course.pictures.style", "mpkit.formats"}
    assert wrong_way("mpkit.histogram", {"mpkit.formats", "mpkit.bench.table"}) == [
        "mpkit.histogram imports mpkit.bench.table"
    ]
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter({**GRAPH, "mpkit.formats": {"mpkit.casting"}}).prepare()


# ---- sizes ----

LONGEST_FILE, LONGEST_FUNCTION = 220, 45


def long_functions(source: str) -> list[str]:
    """Functions with more lines than allowed, their docstring not counted."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if ast.get_docstring(node) is not None:
                lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
            if lines > LONGEST_FUNCTION:
                found.append(f"{node.name}: {lines}")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_files_and_functions_stay_short(module: str) -> None:
    source = MODULES[module].read_text(encoding="utf-8")
    assert len(source.splitlines()) <= LONGEST_FILE
    assert long_functions(source) == []


def test_the_count_of_lines_can_fail() -> None:
    body = "\n".join(f"    x = {n}" for n in range(LONGEST_FUNCTION))
    assert long_functions(f"def long():\n{body}") == [f"long: {LONGEST_FUNCTION + 1}"]
    assert long_functions(f"def long():\n{body[: body.rindex(chr(10))]}") == []
    text = "\n".join(["    word"] * 50)
    assert long_functions(f'def documented():\n    """One.\n{text}\n    """\n    return 1') == []
