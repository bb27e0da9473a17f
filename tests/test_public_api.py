"""The shape of the package: public names, what an import costs, sizes, and imports that only go down."""

from __future__ import annotations

import ast
import graphlib
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
    "BF16", "E4M3", "E5M2", "FP16", "FP32", "TF32", "FloatFormat", "cast", "cast_floating", "fake_cast", "tally",
    "found_inf", "RangeReport", "ExponentHistogram", "trace", "Meter", "Policy", "optim", "scaling", "NoScaling",
    "StaticScale", "DynamicScale", "LossScaler", "StepResult", "fit", "StepRecord", "start",
}  # fmt: skip

# From the bottom up; a module imports only from lines above its own. A folder may import within itself.
LAYERS = (
    "formats operations meter step_record misuse reading data text attention models markup environment lesson typed",
    "rounding overflow histogram grid trace_event store equivalence transformer resnet energy memory_ledger",
    "speed_record transformer_record bench_measure",
    "casting scaling landing trace_ledger weight_slot",
    "emulation native unscaling dtypes_seen gradient_trace weight_keeper trace_names format_speed",
    "bits accumulate cast_effect",
    "attention_trial policy race optim step_result tracing doctor survey_trials",
    "loss_scaler survey",
    "train_step",
    "capture",
    "training",
    "experiments recording bench_cpu",
    "bench_gpu bench_gpu_steps record_traces live_race",
    "live_scales record_speed",
    "record_transformer",
    "plots bench",
    "widgets",
    "exercises",
    "__main__",
)
LEVEL = {name: number for number, line in enumerate(LAYERS) for name in line.split()}
CORE = [name for line in LAYERS[:10] for name in line.split()]
HEAVY = ("matplotlib", "ipywidgets", "IPython", "sklearn", "PIL")


# ---- names ----


def exported(module: ModuleType) -> set[str]:
    """What `from mpkit import x as x` re-exports."""
    tree = ast.parse(inspect.getsource(module))
    froms = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
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


def test_importing_mpkit_and_its_core_is_light() -> None:
    assert heavy_modules_after("import mpkit; " + "; ".join(f"import mpkit.{name}" for name in CORE)) == []


def test_that_check_would_see_each_of_them() -> None:
    seen = heavy_modules_after("import mpkit.plots.style, mpkit.plots.display, mpkit.widgets.panel, sklearn, PIL")
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


def layer(module: str) -> str:
    return module.split(".")[1]


def wrong_way(module: str, imported: set[str]) -> list[str]:
    """Imports of a module that do not go down."""
    return [
        f"{module} imports {other}"
        for other in sorted(imported)
        if other == "mpkit" or (layer(other) != layer(module) and LEVEL[layer(other)] >= LEVEL[layer(module)])
    ]


GRAPH = {name: imports_of(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def test_every_module_has_its_layer() -> None:
    found = {layer(name) for name in MODULES if name != "mpkit"}
    assert found == set(LEVEL)


def test_imports_only_go_down() -> None:
    assert [line for name in MODULES if name != "mpkit" for line in wrong_way(name, GRAPH[name])] == []


def test_no_module_imports_itself_in_a_circle() -> None:
    assert list(graphlib.TopologicalSorter(GRAPH).static_order())[-1] is not None


def test_those_checks_can_fail_too() -> None:
    source = "from mpkit import policy\ndef f():\n    from mpkit.plots import style\n    import mpkit.formats\n"
    assert imports_of(source) == {"mpkit.policy", "mpkit.plots.style", "mpkit.formats"}
    assert wrong_way("mpkit.casting", imports_of(source)) == [
        "mpkit.casting imports mpkit.plots.style", "mpkit.casting imports mpkit.policy",
    ]  # fmt: skip
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter({**GRAPH, "mpkit.formats": {"mpkit.policy"}}).prepare()


# ---- sizes ----

LONGEST_FILE, LONGEST_FUNCTION = 220, 45
LONGER_FILES = {"tracing.py": 231, "loss_scaler.py": 231}  # measured; the number may only fall


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
    name = str(MODULES[module].relative_to(PACKAGE))
    assert len(source.splitlines()) <= LONGER_FILES.get(name, LONGEST_FILE)
    assert long_functions(source) == []


def test_the_exceptions_are_still_needed() -> None:
    for name in LONGER_FILES:
        assert len((PACKAGE / name).read_text(encoding="utf-8").splitlines()) > LONGEST_FILE, f"{name} is short now"


def test_the_count_of_lines_can_fail() -> None:
    body = "\n".join(f"    x = {n}" for n in range(LONGEST_FUNCTION))
    assert long_functions(f"def long():\n{body}") == [f"long: {LONGEST_FUNCTION + 1}"]
    assert long_functions(f"def long():\n{body[: body.rindex(chr(10))]}") == []
    text = "\n".join(["    word"] * 50)
    assert long_functions(f'def documented():\n    """One.\n{text}\n    """\n    return 1') == []
