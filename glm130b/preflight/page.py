"""The findings as a page for people and as JSON for machines."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from glm130b.config.errors import UserError
from glm130b.preflight.finding import Finding
from glm130b.training.journal import now

CHECK_WIDTH = 14


def line(finding: Finding) -> str:
    """One line, whatever a library's message held: state, check, value, mend."""
    words = f"{finding.state:8}{finding.check:{CHECK_WIDTH}}{finding.value}"
    return " ".join(f"{words}; {finding.mend}".splitlines()) if finding.mend else " ".join(words.splitlines())


def is_fit(findings: Sequence[Finding]) -> bool:
    """Warnings are allowed."""
    return not any(finding.state == "FAIL" for finding in findings)


def summary(host: str, findings: Sequence[Finding]) -> str:
    made = [finding for finding in findings if finding.state != "skipped"]
    failures, warnings = (sum(finding.state == state for finding in made) for state in ("FAIL", "warning"))
    warned = f", {warnings} warning{'s' * (warnings > 1)}" * bool(warnings)
    if failures:
        return f"{host}: unfit, {failures} of {len(made)} checks failed{warned}"
    return f"{host}: fit, {len(made)} checks{warned}"


def write_json(file: Path, host: str, findings: Sequence[Finding]) -> None:
    """Written beside and renamed. Raises UserError."""
    data = {
        "host": host,
        "time": now(),
        "fit": is_fit(findings),
        "findings": [asdict(finding) for finding in findings],
    }
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        beside.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        beside.replace(file)
    except OSError as error:
        raise UserError(f"--json {file}: cannot be written ({error.strerror}); name another file") from None
