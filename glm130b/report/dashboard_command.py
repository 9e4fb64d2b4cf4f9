"""``glm130b dashboard``: a page of Weights & Biases with what matters in a run."""

from argparse import ArgumentParser, Namespace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from glm130b.config import yaml_dialect
from glm130b.config.errors import UserError
from glm130b.config.sections import LoggingConfig
from glm130b.durable import replace_durably


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("runs", nargs="*", metavar="RUN", help="folders of the runs to show, such as runs/tiny; or all")
    parser.add_argument("--project", help="where the runs are; the first run's logging.project unless given")
    parser.add_argument("--entity", help="team or user; the first run's logging.entity, or the account's own")
    parser.add_argument("--dry-run", type=Path, metavar="FILE", help="write the page as JSON, and call nobody")


def run(arguments: Namespace) -> int:
    """Save the page and print its address; ``UserError`` without a run, an account, a network or the package."""
    if find_spec("wandb_workspaces") is None:
        raise UserError("dashboard: the package wandb-workspaces is not installed; run `pip install 'glm130b[report]'`")
    from glm130b.report.dashboard import account, as_json, save, workspace

    runs = _configs([Path(folder) for folder in arguments.runs])
    logging = _logging(runs)
    entity, project = arguments.entity or logging.entity, arguments.project or logging.project
    names = [run["name"] for run in runs]
    if arguments.dry_run:
        page = as_json(workspace(project=project, entity=entity or "", runs=names))
        _write(arguments.dry_run, page)
        print(f"{arguments.dry_run}: the page of project {project}, not saved")
    else:
        default_entity = account()
        print(save(workspace(project=project, entity=entity or default_entity, runs=names)))
    return 0


def _write(file: Path, page: str) -> None:
    try:
        replace_durably(file, page)
    except OSError as error:
        raise UserError(f"--dry-run {file}: cannot be written ({error.strerror}); name another file") from error


def _configs(folders: list[Path]) -> list[dict[str, Any]]:
    """Of these runs, as they stand there: they may be those of another version."""
    configs = [_config(folder / "config.yaml") for folder in folders]
    found = zip(folders, configs, strict=True)
    if problems := [
        f"{folder}: is no run's folder, it has no config.yaml of one" for folder, config in found if not config
    ]:
        raise UserError(problems)
    return configs


def _config(file: Path) -> dict[str, Any]:
    """Empty where there is no run's."""
    config = yaml_dialect.parse(file.read_text(encoding="utf-8"), origin=str(file)) if file.is_file() else None
    return config if isinstance(config, dict) and "name" in config else {}


def _logging(runs: list[dict[str, Any]]) -> LoggingConfig:
    """Where the first run's data goes."""
    logging = runs[0].get("logging", {}) if runs else {}
    return LoggingConfig(**{key: logging[key] for key in ("project", "entity") if key in logging})
