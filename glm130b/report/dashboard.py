"""The door to Weights & Biases' workspaces: our panels as a page of a project."""

import json
import re
from collections.abc import Sequence
from contextlib import redirect_stderr
from io import StringIO

import wandb
import wandb_workspaces.reports.v2 as blocks
import wandb_workspaces.workspaces as workspaces
from wandb.errors import Error as WandbError

from glm130b.config.errors import UserError
from glm130b.report.panels import SECTIONS, Panel, Section

_AXIS = "samples"
_COLUMNS = 3


def workspace(*, project: str, entity: str, runs: Sequence[str] = ()) -> workspaces.Workspace:
    """A saved view of ``project`` of ``entity``, of the runs of these names, or of all. Calls nobody."""
    names = "|".join(map(re.escape, runs))
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=f"glm130b {' '.join(runs)}".strip(),
        sections=[_section(section) for section in SECTIONS],
        settings=workspaces.WorkspaceSettings(x_axis=_AXIS, max_runs=10, ignore_outliers=False),
        runset_settings=workspaces.RunsetSettings(query=f"^({names})$" if runs else "", regex_query=bool(runs)),
    )


def as_json(view: workspaces.Workspace) -> str:
    """What Weights & Biases would be sent, for review: without the panels' ids, which are drawn anew at every call."""
    # pydantic tells by its own words which of a model's keys the server knows
    sent = view._to_model().model_dump_json(by_alias=True, exclude_none=True)
    model = json.loads(sent, object_hook=lambda part: {key: part[key] for key in part if key != "__id__"})
    return json.dumps(model, indent=2, ensure_ascii=False) + "\n"


def account() -> str:
    """The user or team that projects belong to unless another is named. Raises ``UserError`` without an account or a
    way to it."""
    try:
        wandb.setup(wandb.Settings(silent=True))
        if not wandb.login(prompt=False):
            raise UserError("wandb: no account is known; run `wandb login`, or look at the page with --dry-run FILE")
        entity = wandb.Api(timeout=20).default_entity
    except (WandbError, OSError, ValueError) as error:
        raise _unreachable(error) from error
    if not entity:
        raise UserError("dashboard: the account has no entity of its own; name a team or user with --entity")
    return str(entity)


def save(view: workspaces.Workspace) -> str:
    """Keep the view; its address. Raises ``UserError`` when nobody takes it."""
    try:
        with redirect_stderr(StringIO()):
            return str(view.save().url)
    except Exception as error:  # whatever its transport raises
        raise _unreachable(error) from error


def _unreachable(error: Exception) -> UserError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(f"wandb: {reason}; --dry-run FILE writes the page without account and network")


def _section(section: Section) -> workspaces.Section:
    layout = workspaces.SectionLayoutSettings(columns=_COLUMNS, rows=-(-len(section.panels) // _COLUMNS))
    return workspaces.Section(
        name=section.title,
        panels=[_plot(panel) for panel in section.panels],
        is_open=True,
        layout_settings=layout,
    )


def _plot(panel: Panel) -> blocks.LinePlot:
    return blocks.LinePlot(
        title=panel.title,
        x=_AXIS,
        y=list(panel.names),
        metric_regex=panel.pattern,
        log_y=panel.scale == "log" or None,
        title_y=panel.unit or None,
        plot_type="pct-area" if panel.style == "shares" else "line",
    )
