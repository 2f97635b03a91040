"""Recording: what a run said, as a file that is only ever appended to, so that whatever happens its beginning is good.

    header    b"zgridrec", then the version of the format: 4 bytes, big-endian
    records   length: 4 bytes, big-endian; MessagePack of (received_ns, channel, body); its CRC-32: 4 bytes, big-endian

Bodies are the bytes that were on the wire. A writer that is killed leaves a last record that is not whole: reading ends
before it.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self
from zlib import crc32

import msgpack

from zgrid.encoding import MAX_BYTES
from zgrid.errors import RecordingError
from zgrid.messaging import Heard

MAGIC = b"zgridrec"
VERSION = 1
HEADER = MAGIC + struct.pack(">I", VERSION)
FLUSH_S = 0.2
_LENGTH = struct.Struct(">I")
_LONGEST = MAX_BYTES + 4096
_BUFFER = 1 << 20


class Writer:
    """Writes a new recording. What is older than ``FLUSH_S`` is with the system, and survives this process."""

    def __init__(self, path: Path) -> None:
        """Begin the file.

        Raises:
            RecordingError: it exists already, or cannot be written.
        """
        self.messages = 0
        self.bytes = len(HEADER)
        """The size of the file so far."""
        self._flushed = time.monotonic()
        try:
            self._file = open(path, "xb", buffering=_BUFFER)  # noqa: SIM115 - closed in close()
        except FileExistsError as error:
            raise RecordingError(f"{path} exists already; a recording is never written over") from error
        except OSError as error:
            raise RecordingError(f"{path} cannot be written: {error}") from error
        self._file.write(HEADER)
        self._file.flush()

    def write(self, heard: Heard) -> None:
        """Append one message.

        Raises:
            RecordingError: the disk is full.
        """
        data: bytes = msgpack.packb((heard.received_ns, heard.channel, heard.body))
        try:
            self._file.write(_LENGTH.pack(len(data)) + data + _LENGTH.pack(crc32(data)))
        except OSError as error:
            raise RecordingError(f"cannot go on recording: {error}") from error
        self.messages += 1
        self.bytes += len(data) + 2 * _LENGTH.size
        self.tick()

    def tick(self) -> None:
        """Give what waits to the system, where it is time; call it also while nothing comes.

        Raises:
            RecordingError: the disk is full.
        """
        if time.monotonic() - self._flushed > FLUSH_S:
            try:
                self._file.flush()
            except OSError as error:
                raise RecordingError(f"cannot go on recording: {error}") from error
            self._flushed = time.monotonic()

    def close(self) -> None:
        """End the file, and wait until it is on the disk; again is harmless.

        Raises:
            RecordingError: the disk is full.
        """
        if self._file.closed:
            return
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise RecordingError(f"the end of the recording is lost: {error}") from error
        finally:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


class Reader:
    """Reads a recording from its beginning, also one that is still being written."""

    def __init__(self, path: Path) -> None:
        """See that it is one.

        Raises:
            RecordingError: it cannot be read, is none, or is of another version.
        """
        self.torn = 0
        """Bytes at the end that are no whole record; known once all was read."""
        self._path = path
        try:
            with open(path, "rb") as file:
                header = file.read(len(HEADER))
        except OSError as error:
            raise RecordingError(f"{path} cannot be read: {error}") from error
        if header[: len(MAGIC)] != MAGIC:
            raise RecordingError(f"{path} is no recording of zgrid")
        if header != HEADER:
            raise RecordingError(f"{path}: version {header[len(MAGIC) :].hex()} of the format, expected {VERSION}")

    def __iter__(self) -> Iterator[Heard]:
        with open(self._path, "rb", buffering=_BUFFER) as file:
            file.seek(len(HEADER))
            good = file.tell()
            while (heard := _read(file)) is not None:
                good = file.tell()
                yield heard
            self.torn = os.fstat(file.fileno()).st_size - good


def _read(file: BinaryIO) -> Heard | None:
    """The next record; None at the end, and where one is not whole."""
    head = file.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > _LONGEST:
        return None
    data, check = file.read(length), file.read(_LENGTH.size)
    if len(check) < _LENGTH.size or _LENGTH.unpack(check)[0] != crc32(data):
        return None
    try:
        received_ns, channel, body = msgpack.unpackb(data)
    except (ValueError, TypeError, msgpack.UnpackException):
        return None
    return Heard(received_ns, channel, body)
