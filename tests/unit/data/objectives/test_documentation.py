"""The row of docs/objectives.md, token by token, is what the code makes of it."""

import re
from pathlib import Path

import numpy as np

from glm130b.data.objectives.blank_infilling import infilling_row
from glm130b.data.objectives.pieces import Pieces, Room, Stretch
from glm130b.data.objectives.spans import Spans
from glm130b.data.tokenizers.special_tokens import SpecialTokens

ROOT = Path(__file__).parents[4]


def test_the_worked_example() -> None:
    special = SpecialTokens.after(1000)
    row = infilling_row(
        Stretch(0, np.arange(1, 13), [12]),
        Pieces(*np.array([[0, 12, 0]]).T),
        Spans(*np.array([[0, 2, 3], [0, 8, 2]]).T),
        order=np.array([1, 0]),
        room=Room(num_slots=1, slot_tokens=16, capacity=16, needed=()),
        special=special,
        objective="mask",
        source="text",
    )
    names = {special.mask: "M", special.sop: "sop", special.eop: "eop"}
    (example,) = re.findall(r"```text\n(.*?)```", (ROOT / "docs" / "objectives.md").read_text(), re.S)
    shown = {line.split()[0]: line.replace("|", "").split()[1:] for line in example.splitlines()[1:]}
    assert shown == {
        "token": [names.get(token, str(token)) for token in row.tokens],
        "predicts": [names.get(token, str(token)) for token in row.targets[row.loss_mask]],
        "position": list(map(str, row.positions)),
        "block": list(map(str, row.block_positions)),
    }
