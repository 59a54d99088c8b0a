"""Messages between the parent and one worker: framed segments over a connected socket.

A message is a list of segments: the first is a small marshalled header, the others are payload (streams and raw
buffers) that is never copied into a header. The same reader serves the worker's blocking socket and the manager's
non-blocking ones. Both ends are the same interpreter, so native byte order and ``marshal``, the fastest for plain
values, are safe.
"""

from __future__ import annotations

import itertools
import marshal
import socket
import struct
import threading
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from nbparallel.interrupts import uncut
from nbparallel.serialize.handover import Descriptors

Buffer = bytes | bytearray | memoryview
Message = tuple[Any, list[bytearray]]

_COUNT = struct.Struct("=I")
_TWO = struct.Struct("=I2Q")
# Linux's default socket buffer is 208 KiB; one read of that size empties it.
_READ_BYTES = 256 * 1024
# IOV_MAX is 1024 on Linux and macOS.
_MAX_VECTORS = 512
# SCM_MAX_FD is 253 on Linux; macOS takes 512. Programs that a task starts need none of them.
_DESCRIPTORS_BYTES = socket.CMSG_SPACE(253 * array("i").itemsize) if hasattr(socket, "CMSG_SPACE") else 0
_NOT_INHERITED = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


def encode(header: Any, segments: Sequence[Buffer] = ()) -> list[Buffer]:
    """Return the pieces of one message, in the order in which they go on the wire."""
    head = marshal.dumps(header)
    if len(segments) == 1:
        size = _nbytes(segments[0])
        return [_TWO.pack(2, len(head), size) + head, segments[0]] if size else [_TWO.pack(2, len(head), 0) + head]
    sizes = [len(head), *(_nbytes(segment) for segment in segments)]
    prefix = _COUNT.pack(len(sizes)) + struct.pack(f"={len(sizes)}Q", *sizes) + head
    return [prefix, *(segment for segment in segments if _nbytes(segment))]


def _nbytes(segment: Buffer) -> int:
    return segment.nbytes if isinstance(segment, memoryview) else len(segment)


class Reader:
    """Puts messages together from whatever pieces a socket delivers.

    Args:
        sock: the socket.
        with_descriptors: whether descriptors may come along; `descriptors` holds those that did, in their order.
    """

    def __init__(self, sock: socket.socket, *, with_descriptors: bool = False) -> None:
        self._socket = sock
        self._takes_descriptors = with_descriptors and _DESCRIPTORS_BYTES > 0
        self.descriptors: deque[int] = deque()
        self._pending = bytearray()
        self._sizes: tuple[int, ...] | None = None
        self._segments: list[bytearray] = []
        self._target: bytearray | None = None  # a large segment, received in place
        self._filled = 0

    def read(self) -> bool:
        """Receive once.

        Returns:
            False at the end of the stream.

        Raises:
            BlockingIOError: nothing is there, on a non-blocking socket.
            ConnectionError: the other side died.
        """
        if self._target is not None:
            count = self._socket.recv_into(memoryview(self._target)[self._filled :])
            self._filled += count
            return count > 0
        if self._takes_descriptors:
            # They come with the first bytes of their message, which is never read into `_target`.
            data, ancillary, _, _ = self._socket.recvmsg(_READ_BYTES, _DESCRIPTORS_BYTES, _NOT_INHERITED)
            for _, _, found in ancillary:
                self.descriptors.extend(array("i", found))
        else:
            data = self._socket.recv(_READ_BYTES)
        self._pending += data
        return len(data) > 0

    def messages(self) -> Iterator[Message]:
        """Yield the messages that are complete."""
        while self._next_segment():
            if self._sizes is not None and len(self._segments) == len(self._sizes):
                head, *segments = self._segments
                self._sizes, self._segments = None, []
                yield marshal.loads(head), segments

    def _next_segment(self) -> bool:
        if self._sizes is None:
            if len(self._pending) < _COUNT.size:
                return False
            (count,) = _COUNT.unpack_from(self._pending)
            end = _COUNT.size + 8 * count
            if len(self._pending) < end:
                return False
            self._sizes = struct.unpack_from(f"={count}Q", self._pending, _COUNT.size)
            del self._pending[:end]
        size = self._sizes[len(self._segments)]
        if self._target is not None:
            if self._filled < size:
                return False
            self._segments.append(self._target)
            self._target = None
        elif len(self._pending) >= size:
            self._segments.append(self._pending[:size])
            del self._pending[:size]
        else:
            self._target = bytearray(size)
            self._filled = len(self._pending)
            self._target[: self._filled] = self._pending
            self._pending.clear()
            return False
        return True


class Writer:
    """Sends messages over a non-blocking socket, keeping what it does not take at once."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._queue: deque[memoryview] = deque()
        self._put = self._sent = 0  # pieces
        self._descriptors: deque[tuple[int, Descriptors]] = deque()  # by the piece that they go along with

    @property
    def waiting(self) -> bool:
        return bool(self._queue)

    def put(self, pieces: Sequence[Buffer], descriptors: Descriptors | None = None) -> None:
        if descriptors:
            self._descriptors.append((self._put, descriptors))
        self._put += len(pieces)
        self._queue.extend(memoryview(piece).cast("B") for piece in pieces)

    def close(self) -> None:
        self._socket.close()

    def flush(self) -> None:
        """Send as much as the socket takes.

        Raises:
            ConnectionError: the other side died.
        """
        try:
            while self._queue:
                self._drop(self._send())
        except BlockingIOError:
            return

    def _send(self) -> int:
        if not self._descriptors:
            return _send(self._socket, self._queue)
        left = self._descriptors[0][0] - self._sent
        if left:  # these go before it
            return _send(self._socket, deque(itertools.islice(self._queue, left)))
        count = socket.send_fds(self._socket, [self._queue[0]], self._descriptors[0][1].numbers)
        self._descriptors.popleft()
        return count

    def _drop(self, count: int) -> None:
        while count:
            piece = self._queue[0]
            if count >= len(piece):
                count -= len(self._queue.popleft())
                self._sent += 1
            else:
                self._queue[0] = piece[count:]
                return


class Channel:
    """A worker's end: blocking, and safe for whatever may print: a task's threads, signal handlers and finalisers."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._writer = Writer(sock)
        self._reader = Reader(sock, with_descriptors=True)
        self._inbox: deque[Message] = deque()
        self._outbox: deque[tuple[list[Buffer], Descriptors | None]] = deque()
        self._lock = threading.RLock()
        self._sending = False

    def send(self, header: Any, segments: Sequence[Buffer] = (), descriptors: Descriptors | None = None) -> None:
        self._outbox.append((encode(header, segments), descriptors))
        with uncut, self._lock:
            # Where a signal handler or a finaliser cut in, the call that it interrupted goes on with its message.
            while self._outbox and not self._sending:
                self._sending = True
                try:
                    if self._outbox:
                        self._writer.put(*self._outbox.popleft())
                        self._writer.flush()
                finally:
                    self._sending = False

    def take(self, count: int) -> list[int]:
        """Return the descriptors that came along with the last message."""
        return [self._reader.descriptors.popleft() for _ in range(count)]

    def fileno(self) -> int:
        """Return the descriptor of the connection."""
        return self._socket.fileno()

    def close(self) -> None:
        """Leave the connection to the other processes that hold it."""
        self._writer.close()

    def receive(self) -> Message:
        """Return the next message.

        Raises:
            EOFError: the parent closed the connection, or died.
        """
        while not self._inbox:
            if not self._reader.read():
                raise EOFError("the parent is gone")
            self._inbox.extend(self._reader.messages())
        return self._inbox.popleft()


def _send(sock: socket.socket, pieces: deque[memoryview]) -> int:
    if hasattr(sock, "sendmsg"):
        if len(pieces) == 1:
            return sock.send(pieces[0])
        return sock.sendmsg([piece for _, piece in zip(range(_MAX_VECTORS), pieces, strict=False)])
    return sock.send(pieces[0])  # Windows
