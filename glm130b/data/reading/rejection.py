"""Why a document, or a whole file, cannot be used."""


class Rejection(ValueError):
    """A document that cannot be used: ``kind`` is one of a few words to count by, the message says what is wrong."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Damaged(Exception):
    """A file that cannot be read to its end; the message says why and how to mend it."""
