"""The one kind of error that is the user's to mend."""

from collections.abc import Sequence

from glm130b.config.patience import is_gone


class UserError(Exception):
    """A mistake in a config, a file or the environment, found before any GPU time is spent.

    Every problem is one sentence that names the key or file, the value, the rule and the mend. It is one printable
    line, too: line breaks and control characters in the names that it quotes are written as in Python. The launcher
    prints the problems from one rank and exits with status 2, without a stack trace.

    >>> print(UserError(["model.num_layers: 0 is not positive; write a number of layers from 1 on"]))
    model.num_layers: 0 is not positive; write a number of layers from 1 on
    """

    exit_status = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        found = (problems,) if isinstance(problems, str) else problems
        self.problems: tuple[str, ...] = tuple(map(_printable, found))
        super().__init__("\n".join(self.problems))


class FileSystemGone(UserError):
    """Files cannot be reached that may come back by themselves: no mistake, but told like one.

    The launcher exits with status 1, after which a supervisor starts the run again.
    """

    exit_status = 1


def unreadable(what: object, error: OSError, *, mend: str) -> UserError:
    """The error to raise for a file, ``what``, that cannot be read: to be mended so, unless its file system is gone."""
    problem = f"{what}: cannot be read ({error.strerror}); "
    return FileSystemGone(problem + "bring its file system back") if is_gone(error) else UserError(problem + mend)


def _printable(text: str) -> str:
    return "".join(it if it.isprintable() else it.encode("unicode_escape").decode() for it in text)
