"""What the project stands on: pins, the Makefile's set-up, the lab's settings, the Binder configuration."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
REPO2DOCKER = shutil.which("jupyter-repo2docker", path=str(BIN))
PIN = re.compile(r"^[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*$")


def requirement_lines() -> list[str]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def pins() -> dict[str, Version]:
    names = (line.split("==") for line in requirement_lines() if "==" in line)
    return {canonicalize_name(name): Version(version) for name, version in names}


def pyproject() -> dict[str, dict[str, object]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def run(*command: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **variables}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


# ---- requirements.txt ----


def test_every_requirement_is_pinned_and_the_project_itself_is_installed() -> None:
    loose = [line for line in requirement_lines() if not PIN.match(line)]
    assert loose == ["-e ."]


def test_the_tests_run_with_the_pinned_versions() -> None:
    installed = {name: Version(importlib.metadata.version(name)) for name in pins()}
    # torch's CPU build calls itself 2.13.0+cpu.
    assert {name: Version(version.public) for name, version in installed.items()} == pins()


def test_pins_satisfy_the_packages_own_bounds() -> None:
    project = pyproject()["project"]
    bounds = [Requirement(text) for text in project["dependencies"] + project["optional-dependencies"]["lessons"]]
    assert len(bounds) > 4
    assert [str(bound) for bound in bounds if pins()[canonicalize_name(bound.name)] not in bound.specifier] == []


# ---- Makefile ----


@pytest.fixture
def ground(tmp_path: Path) -> Path:
    """A folder with what `make setup` reads, and a set-up that claims to be done."""
    if shutil.which("make") is None:
        pytest.skip("no make on this machine")
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".setup-stamp").touch()
    return tmp_path


def test_setting_up_twice_costs_nothing(ground: Path) -> None:
    again = run("make", "setup", "PYTHON=false", cwd=ground)
    assert again.returncode == 0
    assert "Nothing to be done" in again.stdout


@pytest.mark.parametrize("name", ["requirements.txt", "pyproject.toml"])
def test_a_changed_pin_sets_up_again(ground: Path, name: str) -> None:
    stamp = (ground / ".venv" / ".setup-stamp").stat().st_mtime
    os.utime(ground / name, (stamp + 10, stamp + 10))
    assert run("make", "-q", "setup", cwd=ground).returncode == 1


def test_an_old_python_is_refused_kindly(ground: Path) -> None:
    old = ground / "old_python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2"\n[ "$1" != -c ]\n')
    old.chmod(0o755)
    (ground / ".venv" / ".setup-stamp").unlink()
    refused = run("make", "lab", f"PYTHON={old}", cwd=ground)
    assert refused.returncode != 0
    assert re.search(r"mpkit needs Python 3\.11 or newer, but .*old_python is: Python 3\.9\.2\.", refused.stdout)
    assert "make lab PYTHON=python3.12" in refused.stdout


def test_ci_and_binder_scripts_are_executable_bash() -> None:
    for name in (".ci/run", "binder/postBuild", "binder/start"):
        assert os.access(ROOT / name, os.X_OK), name
        assert run("bash", "-n", name, cwd=ROOT).stderr == ""


# ---- JupyterLab's settings ----


def test_each_setting_is_one_that_this_jupyterlab_knows() -> None:
    """A setting renamed by JupyterLab would be ignored in silence, and the pop-up would be back."""
    overrides = json.loads((ROOT / "tools/jupyter/labconfig/default_setting_overrides.json").read_text())
    assert overrides["@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"
    for plugin, settings in overrides.items():
        extension, name = plugin.split(":")
        schema = json.loads((Path(sys.prefix) / f"share/jupyter/lab/schemas/{extension}/{name}.json").read_text())
        assert set(settings) <= set(schema["properties"]), plugin
        jsonschema.validate(settings, schema)


def test_the_lab_opens_the_first_lesson() -> None:
    config = (ROOT / "tools/jupyter/jupyter_server_config.py").read_text()
    address = re.search(r'"/lab/tree/(notebooks/.*\.ipynb)"', config)
    assert address is not None
    assert (ROOT / address[1]).is_file()


# ---- binder/ ----


def environment() -> dict[str, object]:
    return yaml.safe_load((ROOT / "binder/environment.yml").read_text())


def test_binder_bounds_hold_the_pinned_versions() -> None:
    names = {"pytorch-cpu": "torch", "matplotlib-base": "matplotlib"}
    checked = 0
    for line in environment()["dependencies"]:
        # conda writes python=3.11 where pip writes python==3.11.*
        bound = Requirement(re.sub(r"^([\w-]+)=([\d.]+)$", r"\1==\2.*", line))
        pinned = pins().get(canonicalize_name(names.get(bound.name, bound.name)))
        if pinned is not None:
            assert pinned in bound.specifier, line
            checked += 1
    assert checked >= 8


def test_binder_has_the_package_dependencies_and_a_python_that_it_admits() -> None:
    lines = environment()["dependencies"]
    assert environment()["channels"] == ["conda-forge"]
    python = re.fullmatch(r"python=([\d.]+)", lines[0])
    assert python is not None
    assert Version(python[1]) in Requirement(f"python{pyproject()['project']['requires-python']}").specifier
    assert {"pytorch-cpu", "numpy", "jupyterlab", "ipywidgets"} <= {re.split("[<>=]", line)[0] for line in lines}


def test_binder_starts_the_lab_with_the_same_settings(tmp_path: Path) -> None:
    shown = run(str(ROOT / "binder/start"), "printenv", "JUPYTER_CONFIG_PATH", cwd=tmp_path, REPO_DIR=str(ROOT))
    assert shown.stdout.strip() == str(ROOT / "tools" / "jupyter")


@pytest.mark.skipif(REPO2DOCKER is None, reason="jupyter-repo2docker is not installed")
def test_repo2docker_accepts_the_folder_and_refuses_a_broken_one(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "binder", tmp_path / "binder")
    accepted = run(REPO2DOCKER, "--no-build", ".", cwd=tmp_path)
    assert accepted.returncode == 0, accepted.stderr
    assert "RUN ./binder/postBuild" in accepted.stdout
    assert "binder/environment.yml" in accepted.stdout
    assert "${REPO_DIR}/binder/start" in accepted.stdout
    (tmp_path / "binder" / "environment.yml").write_text("dependencies: [python=3.11\n")
    assert run(REPO2DOCKER, "--no-build", ".", cwd=tmp_path).returncode != 0
