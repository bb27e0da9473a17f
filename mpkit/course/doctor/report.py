"""What this machine can do: its devices, each format's native speed against emulation, and what is missing.

`examine()` measures and returns plain data; `text()` and `html()` show it. Under two seconds on two CPU cores.
"""

from dataclasses import dataclass

import torch

from mpkit import FP32
from mpkit.course import markup
from mpkit.course.doctor import environment
from mpkit.course.doctor.environment import Finding
from mpkit.course.doctor.format_speed import SIZE, FormatSpeed, speeds

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
        return f"Time of a {self.size} x {self.size} matrix product on {self.device}, as a multiple of FP32's time"


def _text(finding: Finding) -> str:
    """The arrow before a cure takes the place of a colon."""
    return finding.text.removesuffix(":") if finding.cure else finding.text


def _note(finding: Finding) -> str:
    cure = f"<br>→ {markup.escape(finding.cure)}" if finding.cure else ""
    return f"{MARK[finding.kind]} {markup.escape(_text(finding))}{cure}"


def _row(speed: FormatSpeed) -> tuple[str, ...]:
    native = "none" if speed.native is None else _times(speed.native)
    emulated = "-" if speed.fmt == FP32 else _times(speed.emulated)
    use = "native" if speed.fmt == FP32 else "emulate"  # what the lessons do, with or without a GPU
    return speed.fmt.name, str(speed.fmt.bits), native, emulated, use


def _times(ratio: float) -> str:
    return f"{ratio:.0f}x" if ratio >= 10 else f"{ratio:.2g}x"


def examine(device: str | None = None) -> Report:
    """Look at this machine. `device` is "cpu" or "cuda"; default: CUDA where there is one.

    Raises:
        ValueError: another device, or "cuda" where there is none.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device not in SIZE or (device == "cuda" and not torch.cuda.is_available()):
        known = "'cpu' or 'cuda'" if torch.cuda.is_available() else "'cpu' (this machine has no CUDA device)"
        raise ValueError(f"device {device!r} is not here; use {known}.")
    installed = environment.versions()
    findings = [*_device_findings(device), *environment.findings(installed, environment.server_prefix())]
    return Report(
        device,
        _devices(),
        torch.get_num_threads(),
        SIZE[device],
        speeds(device),
        installed,
        tuple(findings),
    )


def _devices() -> tuple[str, ...]:
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ("CPU", *gpus)


def _device_findings(device: str) -> list[Finding]:
    """What the device means for the lessons, and threads that get in each other's way."""
    found = []
    if device == "cpu":
        found.append(
            Finding(
                "good",
                "No GPU is needed: on a CPU the lessons emulate every small format in FP32, with the same rounding. "
                "Only the speed is not that of a GPU.",
            )
        )
        if torch.get_num_threads() > 1:
            found.append(
                Finding(
                    "note",
                    f"torch uses {torch.get_num_threads()} threads. On a busy machine that makes small steps slow.",
                    'mpkit.start("00") sets one thread; in a script: torch.set_num_threads(1)',
                )
            )
    else:
        found.append(
            Finding(
                "note",
                "The lessons emulate every small format in FP32 on the CPU, on this machine too. "
                "The native times show what the GPU could do.",
            )
        )
    return found
