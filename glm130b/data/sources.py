"""The corpora of a run, opened: rows by source, objective and how often the source was drawn from before."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from glm130b.config.errors import FileSystemGone, UserError, unreadable
from glm130b.config.sections import RunConfig
from glm130b.data.corpus.corpus import Corpus, Document
from glm130b.data.corpus.fingerprint import corpus_fingerprint
from glm130b.data.mixing.mixture import Draw
from glm130b.data.mixing.shares import Kind
from glm130b.data.objectives.instruction_rows import InstructionRows
from glm130b.data.objectives.row import Row
from glm130b.data.objectives.sentences import Sentences
from glm130b.data.objectives.text_rows import TextRows
from glm130b.data.tokenizers.tokenizer import Tokenizer


class Sources:
    """One split of every source of some kinds of samples, as far as the config names it."""

    def __init__(self, config: RunConfig, kinds: Iterable[Kind], *, split: Literal["train", "validation"]) -> None:
        """Open the sources. Raises UserError with every missing, damaged or unsuitable file, and FileSystemGone."""
        self.corpora: dict[tuple[str, str], Corpus] = {}
        """By section and name."""
        self.fingerprints: dict[str, str] = {}
        """Of each corpus, by its key in the config."""
        self._text: dict[str, TextRows] = {}
        self._instructions: dict[str, InstructionRows] = {}
        tokenizer = Tokenizer.load(config.data.tokenizer)
        self.tokenizer_fingerprint = tokenizer.fingerprint
        sentences = Sentences(tokenizer)
        problems = []
        if tokenizer.vocab_size > config.model.vocab_size:
            problems.append(
                f"model.vocab_size: {config.model.vocab_size} is less than the {tokenizer.vocab_size} tokens of "
                f"{config.data.tokenizer}; write at least {tokenizer.vocab_size}"
            )
        for section, name in dict.fromkeys((kind.section, kind.source) for kind in kinds):
            if (source := getattr(config.data, section).get(name)) is None:
                continue
            try:
                corpus = Corpus(
                    Path(source.path),
                    split=split,
                    kind=section,
                    tokenizer=tokenizer.fingerprint,
                    held_out_share=source.held_out_share,
                    vocab_size=tokenizer.vocab_size,
                )
                if section == "text":
                    self._text[name] = TextRows(
                        corpus, config, source=name, split=split, special=tokenizer.special, sentences=sentences
                    )
                else:
                    self._instructions[name] = InstructionRows(
                        corpus, config, source=name, split=split, special=tokenizer.special
                    )
                self.fingerprints[f"data.{section}.{name}"] = corpus_fingerprint(Path(source.path))
            except FileSystemGone:
                raise
            except OSError as error:
                raise unreadable(source.path, error, mend="copy or make the corpus again") from error
            except UserError as error:
                problems += [f"data.{section}.{name}.path: {problem}" for problem in error.problems]
            else:
                self.corpora[section, name] = corpus
        if problems:
            raise UserError(problems)

    @property
    def num_left_out(self) -> dict[str, int]:
        """Pairs of each instruction set that are never drawn, because their answer does not fit a whole row."""
        return {name: rows.num_left_out for name, rows in self._instructions.items()}

    def draws_of(self, section: str, name: str, document: Document, *, num_draws: int) -> Iterator[int]:
        """Those of the first ``num_draws`` draws of a source that take a stretch with some of the document, rising."""
        rows = self._text[name] if section == "text" else self._instructions[name]
        for epoch in range(-(-num_draws // rows.rows_per_epoch)):
            for index in sorted(rows.drawn_for(document, epoch=epoch)):
                if (ordinal := epoch * rows.rows_per_epoch + index) < num_draws:
                    yield ordinal

    def row(self, draw: Draw) -> Row:
        """The row of a draw. Raises UserError for a source of the run's past that is not open."""
        try:
            if draw.section == "instructions":
                return self._instructions[draw.source].row(draw.ordinal)
            return self._text[draw.source].row(draw.objective, draw.ordinal)
        except KeyError:
            raise UserError(
                f"{draw.source}: was drawn from here, but the config does not name it now; name it, with weight 0"
            ) from None
