"""The door to TensorBoard: event files in ``tensorboard`` in the run's folder."""

import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event as Entry
from tensorboard.compat.proto.event_pb2 import SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from glm130b.training.journal import Event
from glm130b.training.metrics import Record


class TensorBoard:
    """Values as ``train/<name>`` and ``validation/<name>`` over the steps, events as text.

    Of TensorBoard it takes the format of a record, neither torch's writer nor TensorBoard's own: theirs write on
    threads that end at the first full disk. After an ``OSError`` a method can be called again, and goes on in a new
    file.
    """

    def __init__(self, folder: Path) -> None:
        """``folder`` is the run's."""
        self._folder = folder / "tensorboard"
        self._writer: RecordWriter | None = None

    def begin(self, step: int) -> None:
        """A new session: readers drop what is there of later steps, all there is before the first step."""
        void_from = step + 1 if step else 0
        self._add(Entry(step=void_from, session_log=SessionLog(status=SessionLog.START)))

    def write(self, record: Record) -> None:
        scalars = [
            Summary.Value(tag=f"{record.kind}/{name}", simple_value=value) for name, value in record.values.items()
        ]
        self._add(Entry(step=record.step, summary=Summary(value=scalars)))

    def tell(self, event: Event) -> None:
        self._add(Entry(step=event.step, summary=text_pb(f"events/{event.name}", event.message)))

    def close(self) -> None:
        if self._writer:
            self._writer.close()

    def _add(self, entry: Entry) -> None:
        entry.wall_time = time.time()
        try:
            self._writer = self._writer or self._new_file()
            self._writer.write(entry.SerializeToString())
            self._writer.flush()
        except OSError:
            self._writer = None  # its last record may be torn, and no reader goes past that
            raise

    def _new_file(self) -> RecordWriter:
        """Readers take the files in the order of their names, so these begin with the time."""
        self._folder.mkdir(exist_ok=True)
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        file = self._folder / f"events.out.tfevents.{seconds:010d}.{nanoseconds:09d}"
        writer = RecordWriter(file.open("xb"))
        writer.write(Entry(wall_time=seconds, file_version="brain.Event:2").SerializeToString())
        return writer
