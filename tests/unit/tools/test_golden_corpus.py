"""The golden losses' text is the same bytes everywhere; if it is not, no loss can be."""

import hashlib
from pathlib import Path

import golden_corpus


def test_the_bytes_are_those_of_every_machine(tmp_path: Path) -> None:
    """Python 3.9 to 3.13 write them."""
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in golden_corpus.write_corpus(tmp_path)]
    assert digests == [
        "0729ae3b4f6dfefa3a1d3deffc69d6c9df29c292f6720a773ccb3c4e1e4298db",
        "9ef52fdd4531a0d8d3db9cb84e4a92e50e2ff2347a18e82bf4e77c18bc844f97",
    ]
