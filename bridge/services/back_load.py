"""Files of HL7 v2 messages taken into the inbox: of any size in memory that does not grow, and from where one stopped.

1. A file is read in parts that end where a message begins; a part's messages are committed together.
2. After each part its end is noted below HOME, so that a run that was stopped goes on there. What was kept and not yet
   noted is met again, and the inbox knows it: nothing is taken twice.
3. A file that changed since (size or time) is read from its beginning; that, too, doubles nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import orjson

from anchor.gm import sm3
from bridge.errors import Overloaded
from bridge.services.ingest import Acknowledgement, IngestService
from fhir_adapters.errors import ParseError
from fhir_adapters.hl7v2 import messages, whole_messages

PART_BYTES = 256 * 1024
"""Bytes read at once, unless a single message is longer: some hundred messages to repeat after a kill."""

MAX_MESSAGE_BYTES = 256 * 1024 * 1024
"""Most bytes without a further header: longer is no file of messages, and would have to be held in memory."""

KEPT_TOGETHER = 256
"""Messages of one commit."""

_NAME_CHARACTERS = 32


@dataclass(slots=True)
class Taken:
    """What became of a file's messages. ``numbered``: messages met, those of earlier runs too."""

    accepted: int = 0
    repeated: int = 0
    refused: int = 0
    numbered: int = 0


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a file was taken in: it is this file while size and time (nanoseconds) are the same."""

    size: int
    modified: int
    offset: int = 0
    numbered: int = 0


class Bookmarks:
    """Where runs that have not ended stopped; one small file each, in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def find(self, source: str, file: Path) -> Reached:
        """Return how far a file was taken in for a source; offset 0 for one that is not known or has changed."""
        stat = file.stat()
        now = Reached(stat.st_size, stat.st_mtime_ns)
        try:
            known = Reached(**orjson.loads(self._place(source, file).read_bytes()))
        except (OSError, orjson.JSONDecodeError, TypeError):
            return now
        return known if (known.size, known.modified) == (now.size, now.modified) else now

    def note(self, source: str, file: Path, reached: Reached) -> None:
        """Remember how far a file was taken in; a power cut may lose it, which costs time only."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        place = self._place(source, file)
        partial = place.with_suffix(".partial")
        partial.write_bytes(orjson.dumps(asdict(reached)))
        partial.replace(place)

    def drop(self, source: str, file: Path) -> None:
        """Forget a file that was taken in whole."""
        self._place(source, file).unlink(missing_ok=True)

    def _place(self, source: str, file: Path) -> Path:
        name = sm3(f"{source}\0{os.fspath(file.resolve())}".encode(errors="surrogateescape")).hex()
        return self._directory / f"{name[:_NAME_CHARACTERS]}.json"


class BackLoad:
    """Takes in files of messages for one source.

    ``make_room`` is called when the inbox takes no more: it returns once it may be tried again, or raises.
    ``refused`` hears of each message that was kept as failed: its number in the file (from 1) and the answer.
    """

    def __init__(
        self,
        ingest: IngestService,
        source: str,
        *,
        make_room: Callable[[Overloaded], None],
        refused: Callable[[int, Acknowledgement], None],
    ) -> None:
        self._ingest = ingest
        self._source = source
        self._make_room = make_room
        self._refused = refused

    def take(self, stream: BinaryIO, taken: Taken, offset: int = 0) -> Iterator[int]:
        """Take in a stream from a place where a message begins; gives the place reached after each part is kept.

        Counts into ``taken``. Raises ``AdapterError`` for what is no file of messages, and what ``make_room`` raises.
        """
        for part, reached in parts(stream, offset):
            pieces = list(messages(part))
            for start in range(0, len(pieces), KEPT_TOGETHER):
                self._keep(pieces[start : start + KEPT_TOGETHER], taken)
            yield reached

    def _keep(self, pieces: Sequence[bytes], taken: Taken) -> None:
        judged = [self._ingest.judge(self._source, piece) for piece in pieces]
        answers = self._ingest.keep(judged)
        while lost := [place for place, answer in enumerate(answers) if answer.id is None]:
            self._make_room(Overloaded())
            for place, answer in zip(lost, self._ingest.keep([judged[place] for place in lost]), strict=True):
                answers[place] = answer
        for answer in answers:
            taken.numbered += 1
            if not answer.accepted:
                taken.refused += 1
                self._refused(taken.numbered, answer)
            elif answer.replayed:
                taken.repeated += 1
            else:
                taken.accepted += 1


def parts(stream: BinaryIO, offset: int = 0) -> Iterator[tuple[bytes, int]]:
    """Give a file of messages in parts, each with the place where it ends, from one such place on.

    Raises ``ParseError`` where more than ``MAX_MESSAGE_BYTES`` follow each other without a header.
    """
    if offset:
        stream.seek(offset)
    held = b""
    while True:
        more = stream.read(max(PART_BYTES, len(held)))  # doubling: a long message is not looked through again and again
        held += more
        cut = whole_messages(held) if more else len(held)
        if cut:
            offset += cut
            yield held[:cut], offset
            held = held[cut:]
        if not more:
            return
        if len(held) > MAX_MESSAGE_BYTES:
            raise ParseError(f"no message begins within {MAX_MESSAGE_BYTES} bytes", "MSH")
