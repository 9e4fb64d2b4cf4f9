"""What a checkpoint costs a run: how long training waits for it, and how long it takes; and how fast it is verified.

    python benchmarks/checkpoint.py                              # 4 layers of hidden size 512 in one process
    python benchmarks/checkpoint.py --layers 4 --hidden 12288    # a GPU of 141 GB: the state of 7.3 billion parameters
    python benchmarks/checkpoint.py --folder /mnt/shared/here    # the file system that the run will save to

One process saves its whole state in turns: in place, and as a copy that is written beside. A run's ranks each save
their own part at once.
"""

import tempfile
import threading
import time
from argparse import ArgumentParser
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from glm130b.config.load import load_config
from glm130b.config.sections import RunConfig
from glm130b.environment import Launch, prepare_environment

if TYPE_CHECKING:
    from glm130b.checkpoint.folder import CheckpointFolder

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--folder", help="where to write; a temporary folder by default")
    options = parser.parse_args()
    overrides = [
        f"model.num_layers={options.layers}",
        f"model.hidden_size={options.hidden}",
        f"model.num_attention_heads={max(1, options.hidden // 128)}",
        f"model.ffn_hidden_size={8 * options.hidden // 3 // 64 * 64}",
        f"model.vocab_size={options.vocab}",
        "parallel.tensor=1",
        "parallel.pipeline=1",
        "parallel.data=1",
    ]
    config = load_config(ROOT / "configs" / "tiny.yaml", overrides)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        measure(config, Path(folder), options.turns)


def measure(config: RunConfig, folder: Path, turns: int) -> None:
    """Print a line for each save."""
    prepare_environment(Launch(rank=0, local_rank=0, world_size=1))  # before torch is imported
    from machine import describe_machine, now

    from glm130b.checkpoint.description import Description
    from glm130b.checkpoint.folder import CheckpointFolder
    from glm130b.checkpoint.store import CheckpointStore
    from glm130b.parallel.device import open_device
    from glm130b.parallel.placement import build_stage
    from glm130b.parallel.topology import connect, disconnect
    from glm130b.parallel.zero import ZeroEngine
    from glm130b.training.journal import Journal
    from glm130b.training.progress import Progress

    topology = connect(
        config.parallel,
        device=open_device(local_rank=0),
        init_method=(folder / "meeting-point").as_uri(),
        rank=0,
        world_size=1,
        timeout=timedelta(minutes=1),
    )
    stage = build_stage(config, topology)
    checkpoints = CheckpointFolder(folder / "checkpoints")
    checkpoints.create()
    store = CheckpointStore(
        checkpoints,
        stage=stage,
        engine=ZeroEngine(config, stage, topology),
        topology=topology,
        journal=Journal(None),
        patience_seconds=0.0,
    )
    gigabytes = 4 * sum(piece.view.numel() for piece in store.live()) / 1e9
    print(f"machine: {describe_machine(topology.device)}; {gigabytes:.2f} GB of state")
    for turn in range(turns):
        for kind, step in (("in place", 2 * turn), ("beside", 2 * turn + 1)):
            description = Description(Progress(step=step), {}, {}, "").to_json()
            begun = now(topology.device)
            if kind == "beside":
                copy = store.copy()
                writer = threading.Thread(
                    target=store.write, args=(copy,), kwargs={"step": step, "description": description}
                )
                writer.start()
                stalled = time.perf_counter() - begun
                writer.join()
            else:
                store.write(store.live(), step=step, description=description)
                stalled = time.perf_counter() - begun
            seconds = time.perf_counter() - begun
            print(f"{kind:9} stall {stalled:.3f} s, in all {seconds:.3f} s, {gigabytes / seconds:.2f} GB/s", flush=True)
            checkpoints.retain(keep_last=1, keep_every_steps=None)
    _verify(checkpoints, gigabytes)
    disconnect()


def _verify(checkpoints: "CheckpointFolder", gigabytes: float) -> None:
    import torch

    from glm130b.checkpoint.checksums import verify

    newest = checkpoints.latest()
    assert newest is not None
    begun = time.perf_counter()
    assert not verify(newest)
    seconds = time.perf_counter() - begun
    print(f"verifying {seconds:.3f} s, {gigabytes / seconds:.2f} GB/s, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
