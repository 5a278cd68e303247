"""``ray-rl doctor``: check this machine, or those of a cluster, and say what to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from ray_rl.commands.flags import parse, save_json
from ray_rl.commands.screen import make_console
from ray_rl.doctor import Finding, examine

_STYLES = {"ok": "green", "warning": "yellow", "failure": "bold red"}


@dataclass(frozen=True)
class DoctorFlags:
    """Flags of ``ray-rl doctor``."""

    run_dir: Path = Path("runs")
    """Folder in which runs will be written."""
    address: str | None = None
    """Address of a Ray cluster to try, or auto; none: a Ray of its own is started and ended."""
    cluster: Path | None = None
    """File for `ray up`: check it in place of this machine, and the machines that it names, over SSH."""
    json: Path | None = None
    """File for what the table shows, as JSON."""


def run(words: list[str]) -> int:
    """Check the machine; returns 1 when training cannot run on it."""
    flags = parse(DoctorFlags, "doctor", "Check this machine, and say what to do.", words)
    console = make_console()
    with console.status("checking"):
        findings = _examine_cluster(flags.cluster) if flags.cluster else examine(flags.run_dir, flags.address)
    console.print(_table(findings))
    n_failures = sum(finding.level == "failure" for finding in findings)
    n_warnings = sum(finding.level == "warning" for finding in findings)
    console.print(f"{n_failures} failures, {n_warnings} warnings")
    save_json(flags.json, {"findings": [asdict(finding) for finding in findings]})
    return 1 if n_failures else 0


def _examine_cluster(file: Path) -> list[Finding]:
    from ray_rl.ray_cluster_file import read_cluster_file
    from ray_rl.ssh_hosts import examine_files, examine_hosts

    cluster = read_cluster_file(file)
    form = Finding(str(file), "ok", f"ray up takes it (provider {cluster.provider})")
    here = [form, *examine_files(cluster.sent, cluster.key)]
    if cluster.provider != "local":
        return here
    return [*here, *examine_hosts(cluster.head, cluster.workers, cluster.user, cluster.key)]


def _table(findings: list[Finding]) -> Table:
    table = Table(show_lines=False)
    for name in ("what", "", "found", "what to do"):
        table.add_column(name)
    for finding in findings:
        style = _STYLES[finding.level]
        table.add_row(finding.what, f"[{style}]{finding.level}[/]", finding.found, finding.remedy)
    return table
