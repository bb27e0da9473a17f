"""What this machine can do: its devices, each format's native speed against emulation, and what is missing.

`examine()` measures and returns plain data; `text()` and `html()` show it. Under two seconds on two CPU cores.
"""

from dataclasses import dataclass

import torch

from mpkit import FP32
from mpkit.course import markup
from mpkit.course.doctor import environment, hardware
from mpkit.course.doctor.environment import Finding
from mpkit.course.doctor.format_speed import SIZE, FormatSpeed, speeds
from mpkit.course.gpu import look

MARK = {"good": "✓", "note": "·", "bad": "✗"}


@dataclass(frozen=True)
class Report:
    """Everything that was found. `devices` are names in words; `versions` has "" for what is missing."""

    device: str
    devices: tuple[str, ...]
    threads: int
    size: int
    formats: tuple[FormatSpeed, ...]
    versions: dict[str, str]
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing needs a cure."""
        return all(finding.kind != "bad" for finding in self.findings)

    def rows(self) -> list[tuple[str, ...]]:
        """The table of formats as texts, header first."""
        header = ("Format", "Bits", "Native matmul", "Emulated matmul", "Use")
        return [header, *(_row(speed) for speed in self.formats)]

    def text(self) -> str:
        """The report as plain text."""
        lines = [f"Devices: {', '.join(self.devices)}. CPU threads: {self.threads}.", ""]
        lines += [self.caption(), markup.columns(self.rows()), ""]
        lines += [", ".join(f"{name} {version or 'missing'}" for name, version in self.versions.items()), ""]
        lines += [f"{MARK[f.kind]} {_text(f)}{' → ' + f.cure if f.cure else ''}" for f in self.findings]
        return "\n".join(lines)

    def html(self) -> str:
        """The report as HTML for a notebook."""
        header, *rows = [[markup.escape(cell) for cell in row] for row in self.rows()]
        devices = f"<div><b>{markup.escape(', '.join(self.devices))}</b> · CPU threads: {self.threads}</div>"
        versions = " · ".join(f"{name} {version or 'missing'}" for name, version in self.versions.items())
        notes = "".join(markup.card(_note(finding), finding.kind) for finding in self.findings)
        table = markup.table(header, rows, caption=markup.escape(self.caption()))
        return f'<div style="color:{markup.TEXT}">{devices}{table}<p>{markup.escape(versions)}</p>{notes}</div>'

    def caption(self) -> str:
        """What the columns mean."""
        return f"A {self.size} x {self.size} matrix product on {self.device}, against FP32's"


def _text(finding: Finding) -> str:
    """The arrow before a cure takes the place of a colon."""
    return finding.text.removesuffix(":") if finding.cure else finding.text


def _note(finding: Finding) -> str:
    cure = f"<br>→ {markup.escape(finding.cure)}" if finding.cure else ""
    return f"{MARK[finding.kind]} {markup.escape(_text(finding))}{cure}"


def _row(speed: FormatSpeed) -> tuple[str, ...]:
    native = "none" if speed.native is None else _times(speed.native)
    emulated = "-" if speed.fmt == FP32 else _times(speed.emulated)
    return speed.fmt.name, str(speed.fmt.bits), native, emulated, speed.use


def _times(ratio: float) -> str:
    """In words: "32x" alone reads as faster to some."""
    if 0.95 <= ratio <= 1.05:
        return "as fast"
    times, how = (ratio, "slower") if ratio > 1 else (1 / ratio, "faster")
    return f"{times:.0f}x {how}" if times >= 10 else f"{times:.2g}x {how}"


def examine(device: str | None = None) -> Report:
    """Look at this machine. `device` is "cpu" or "cuda", where to time the formats; default: where the lessons compute.

    Whatever cannot be looked at becomes a finding.

    Raises:
        ValueError: another device, or "cuda" where no GPU can be used.
    """
    gpu = look()
    if device is not None and (device not in SIZE or (device == "cuda" and gpu.case != "fine")):
        known = "'cpu' or 'cuda'." if gpu.case == "fine" else f"'cpu'. {gpu.why}"
        raise ValueError(f"device {device!r} is not here; use {known}")
    lessons, findings = hardware.findings(gpu)
    device, formats, untimed = _timed(device or lessons)
    installed = environment.versions()
    return Report(
        device,
        hardware.names(),
        torch.get_num_threads(),
        SIZE[device],
        formats,
        installed,
        (*findings, *untimed, *hardware.threads(device), *environment.examine(installed)),
    )


def _timed(device: str) -> tuple[str, tuple[FormatSpeed, ...], list[Finding]]:
    """Time the formats; on the CPU where the GPU fails, for example because its memory is full."""
    try:
        return device, speeds(device), []
    except RuntimeError as error:
        if device == "cpu":
            raise
        text = f"The GPU could not be timed ({type(error).__name__}), so the table shows the CPU."
        return "cpu", speeds("cpu"), [Finding("note", text)]
