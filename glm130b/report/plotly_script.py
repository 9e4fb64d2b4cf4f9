"""The door to Plotly: its JavaScript, which the page carries inside."""

from glm130b.config.errors import UserError


def plotly_script() -> str:
    """About 5 MB of text. Raises UserError without the package."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise UserError("report: needs the package plotly; pip install 'glm130b[report]'") from error
    return get_plotlyjs()
