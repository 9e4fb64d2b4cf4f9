"""The training data as a sequence of rows: a row is a pure function of (config, seed, sample index)."""

from pathlib import Path
from typing import Literal

from glm130b.config.errors import UserError
from glm130b.config.sections import RunConfig, SourceConfig
from glm130b.data.corpus import Corpus
from glm130b.data.instruction_rows import InstructionRows
from glm130b.data.mixture import Mixture
from glm130b.data.row import Row
from glm130b.data.text_rows import TextRows
from glm130b.data.tokenizer import Tokenizer

OBJECTIVES: tuple[str, ...] = ("mask", "gmask", "instruction")


class GLMDataset:
    """Rows by sample index, the same in every process, whatever was asked before.

    The held-out split mixes all its rows as training does when every ramp of the mixture has ended, so that its first
    n rows are always the same.
    """

    def __init__(self, config: RunConfig, *, split: Literal["train", "validation"]) -> None:
        """Open the sources that ever have a share. Raises UserError with every missing, damaged or unsuitable file."""
        self._mixture = Mixture(config, settled=split == "validation")
        self._text: dict[str, TextRows] = {}
        self._instructions: dict[str, InstructionRows] = {}
        tokenizer = Tokenizer.load(config.data.tokenizer)
        self.tokenizer_fingerprint = tokenizer.fingerprint
        problems = []
        if tokenizer.vocab_size > config.model.vocab_size:
            problems.append(
                f"model.vocab_size: {config.model.vocab_size} is less than the {tokenizer.vocab_size} tokens of "
                f"{config.data.tokenizer}; write at least {tokenizer.vocab_size}"
            )
        for section, name in dict.fromkeys((kind.section, kind.source) for kind in self._mixture.kinds):
            source: SourceConfig = getattr(config.data, section)[name]
            try:
                corpus = Corpus(Path(source.path), split=split, kind=section, tokenizer=tokenizer.fingerprint)
                if section == "text":
                    self._text[name] = TextRows(corpus, config, source=name, split=split, special=tokenizer.special)
                else:
                    self._instructions[name] = InstructionRows(
                        corpus, config, source=name, split=split, special=tokenizer.special
                    )
            except UserError as error:
                problems += [f"data.{section}.{name}.path: {problem}" for problem in error.problems]
        if problems:
            raise UserError(problems)

    @property
    def num_cut_answers(self) -> dict[str, int]:
        """Pairs of each instruction set whose answer is longer than a slot can hold, so that its end is cut."""
        return {name: rows.num_cut_answers for name, rows in self._instructions.items()}

    def __getitem__(self, sample_index: int) -> Row:
        draw = self._mixture.locate(sample_index)
        if draw.objective == "instruction":
            return self._instructions[draw.source].row(draw.ordinal)
        return self._text[draw.source].row(draw.objective, draw.ordinal)
