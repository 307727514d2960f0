"""HAR-2 (Anguita et al. 2013; as two classes 1901.02358): what a person with a phone is doing.

    input    x_t in R^9, acceleration of the body, turns and total acceleration    T = 128, 50 Hz
    target   0 sitting, lying or walking upstairs; 1 standing, walking or walking downstairs

kinds=6 has each activity apart. The parts share no person; validation is on the last four, of 21,
of those that were published to train on, held_out="test" on the nine of the test part. Numbers
are as published, in g and radians a second.

Baseline: the frequencies of the classes.
Test accuracy in the literature, of two classes: FastGRNN 0.956, LSTM 0.937, GRU 0.936 (1901.02358).
"""

from typing import Annotated, Any, Literal

from seqjax.core.ranges import Range
from seqjax.data import prepared
from seqjax.data.sets.har import ACTIVITIES, SIGNALS, STEPS
from seqjax.tasks.records import Encoded, RecordTask, from_records
from seqjax.tasks.task import Classes, Features, Spec

SECOND = {"standing", "walking", "walking downstairs"}


def har2(
    *,
    kinds: Literal[2, 6] = 2,
    held_out: Literal["validation", "test"] = "validation",
    workers: Annotated[int, Range(0)] = 0,
) -> RecordTask:
    """The activity of a person, or which half of the activities it is of.

    kinds: of activities that are told apart.
    workers: processes that read the windows ahead.
    """

    def encode(example: Any, length: int) -> Encoded:
        activity = int(example["activity"])
        y = activity if kinds == 6 else int(ACTIVITIES[activity] in SECOND)
        return {"x": example["signals"], "y": y}

    return from_records(
        "har2", Spec(Features(len(SIGNALS)), Classes(kinds, per_step=False)), prepared("har"),
        encode, parts={part: part for part in ("train", "validation", "test")}, held_out=held_out,
        steps=STEPS, workers=workers, classes=ACTIVITIES if kinds == 6 else (),
    )  # fmt: skip
