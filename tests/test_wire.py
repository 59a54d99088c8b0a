"""The framing of `nbparallel.engine.wire`: whatever pieces a socket takes and gives, the messages stay whole.

Each test of sockets runs over both transports: a Unix pair, and the loopback connection that Windows has in its place.
"""

from __future__ import annotations

import itertools
import os
import random
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterator

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from nbparallel.engine import process, wire
from nbparallel.serialize.handover import Descriptors

#: More than the buffers of both transports hold.
LARGE = 9_000_000

Pair = tuple[socket.socket, socket.socket]


def unix_pair() -> Pair:
    return socket.socketpair()


def loopback_pair() -> Pair:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    return ours, theirs


@pytest.fixture(params=[unix_pair, loopback_pair] if hasattr(socket, "AF_UNIX") else [loopback_pair])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    ours, theirs = request.param()
    with ours, theirs:
        yield ours, theirs


class Stream:
    """A socket's receiving side that gives known bytes in pieces of given sizes."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._data = memoryview(data)
        self._sizes = sizes
        self._turn = 0

    def _take(self, most: int) -> memoryview:
        size = min(most, self._sizes[self._turn % len(self._sizes)])
        self._turn += 1
        piece, self._data = self._data[:size], self._data[size:]
        return piece

    def recv(self, most: int) -> bytes:
        return bytes(self._take(most))

    def recv_into(self, target: memoryview) -> int:
        piece = self._take(len(target))
        target[: len(piece)] = piece
        return len(piece)


def joined(messages: list[tuple[object, list[bytes]]]) -> bytes:
    return b"".join(b"".join(wire.encode(header, segments)) for header, segments in messages)


def received(reader: wire.Reader) -> list[tuple[object, list[bytes]]]:
    """Read to the end of the stream."""
    found = []
    going = True
    while going:
        going = reader.read()
        found += [(header, [bytes(segment) for segment in segments]) for header, segments in reader.messages()]
    return found


headers = st.tuples(st.text(max_size=20), st.integers(), st.none() | st.lists(st.integers(), max_size=3))
segments = st.lists(st.binary(max_size=40) | st.integers(0, 700_000).map(bytes), max_size=5)


@settings(deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.tuples(headers, segments), max_size=6),
    st.lists(st.integers(1, 5) | st.integers(1, 10**6), min_size=1, max_size=10),
)
def test_messages_survive_any_cutting(messages, sizes):
    if sum(sizes) < 50 * len(sizes):
        messages = [(header, [segment[:1000] for segment in each]) for header, each in messages]  # for its speed
    assert received(wire.Reader(Stream(joined(messages), sizes))) == messages


def test_messages_survive_byte_by_byte():
    messages = [(("a", 1), []), (("b",), [b""]), (("c",), [b"1", b"", b"x" * 3000]), ((), [b"", b""])]
    assert received(wire.Reader(Stream(joined(messages), [1]))) == messages


def test_many_messages_come_out_of_one_read():
    messages = [((number,), [b"x" * (number % 7)]) for number in range(3000)]
    reader = wire.Reader(Stream(joined(messages), [10**6]))
    assert reader.read()
    assert [header for header, _ in reader.messages()] == [(number,) for number in range(3000)]


def test_half_a_message_is_none():
    data = joined([(("whole",), [b"1"]), (("half",), [b"x" * 100])])
    reader = wire.Reader(Stream(data[:-1], [10**6]))
    assert [header for header, _ in received(reader)] == [("whole",)]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_is_a_segment(kind):
    payload = kind(b"\x00\x01\xff" * 50)
    assert received(wire.Reader(Stream(joined([((), [payload, payload])]), [7]))) == [((), [bytes(payload)] * 2)]


def test_a_segment_of_wide_items_counts_in_bytes():
    wide = memoryview(bytearray(8 * 6)).cast("q").cast("B").cast("d", (2, 3))
    assert received(wire.Reader(Stream(joined([(("d",), [wide.cast("B")])]), [5]))) == [(("d",), [bytes(48)])]
    writer_side, reader_side = socket.socketpair()
    with writer_side, reader_side:
        wire.Channel(writer_side).send(("d",), [wide, wide])
        assert wire.Channel(reader_side).receive() == (("d",), [bytearray(48)] * 2)


# ---- over sockets ----


def test_a_message_crosses_both_ways(pair):
    one, other = map(wire.Channel, pair)
    one.send(("ping", 1), [b"a", b""])
    assert other.receive() == (("ping", 1), [bytearray(b"a"), bytearray()])
    other.send(("pong",))
    assert one.receive() == (("pong",), [])


@pytest.mark.parametrize("sizes", [[0], [1], [LARGE], [1, LARGE, 0, 3], [10] * 2000])
def test_a_writer_keeps_what_the_socket_does_not_take(pair, sizes):
    ours, theirs = pair
    ours.setblocking(False)
    source = random.Random(1)
    message = [source.randbytes(size) for size in sizes]
    writer = wire.Writer(ours)
    writer.put(wire.encode(("first",), message))
    writer.put(wire.encode(("second",), [b"end"]))
    writer.flush()
    assert writer.waiting == (sum(sizes) > LARGE / 2)
    reader, found = wire.Reader(theirs), []
    while len(found) < 2:
        assert reader.read()
        found += reader.messages()
        writer.flush()
    assert found == [(("first",), message), (("second",), [b"end"])]
    assert not writer.waiting


def test_a_non_blocking_reader_says_that_nothing_is_there(pair):
    ours, theirs = pair
    ours.setblocking(False)
    reader = wire.Reader(ours)
    with pytest.raises(BlockingIOError):
        reader.read()
    theirs.sendall(joined([((), [b"x" * 10])])[:-3])
    while True:  # the loopback may take a moment
        try:
            assert reader.read()
        except BlockingIOError:
            continue
        break
    assert list(reader.messages()) == []
    with pytest.raises(BlockingIOError):
        reader.read()


def test_a_peer_that_closed_ends_the_stream_after_its_last_message(pair):
    ours, theirs = pair
    wire.Channel(theirs).send(("last",), [b"words"])
    theirs.close()
    channel = wire.Channel(ours)
    assert channel.receive() == (("last",), [bytearray(b"words")])
    with pytest.raises(EOFError):
        channel.receive()


def test_a_peer_that_closed_amid_a_message_ends_the_stream(pair):
    ours, theirs = pair
    theirs.sendall(joined([(("cut",), [b"x" * 1000])])[:500])
    theirs.close()
    with pytest.raises(EOFError):
        wire.Channel(ours).receive()


def test_writing_to_a_dead_peer_is_a_connection_error(pair):
    ours, theirs = pair
    theirs.close()
    channel = wire.Channel(ours)
    with pytest.raises(ConnectionError):
        send_on(channel)  # the loopback takes the first bytes, and refuses the next


def send_on(channel: wire.Channel) -> None:
    for _ in range(1000):
        channel.send(("x",), [b"x" * 100_000])


def test_several_threads_send_whole_messages(pair):
    channel = wire.Channel(pair[0])
    payloads = [bytes([number]) * size for number, size in enumerate([1, 0, 70_000, 300_000])]

    def send(number: int) -> None:
        for turn in range(50):
            channel.send((number, turn), [payloads[number], b"|", payloads[number]])

    threads = [threading.Thread(target=send, args=(number,)) for number in range(len(payloads))]
    for thread in threads:
        thread.start()
    other = wire.Channel(pair[1])
    turns: dict[int, list[int]] = {number: [] for number in range(len(payloads))}
    for _ in range(50 * len(threads)):
        (number, turn), segments = other.receive()
        assert segments == [payloads[number], b"|", payloads[number]]
        turns[number].append(turn)
    for thread in threads:
        thread.join()
    assert all(seen == list(range(50)) for seen in turns.values())


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no interval timers")
def test_a_signal_handler_that_sends_amid_a_send_garbles_nothing(pair):
    channel, other = map(wire.Channel, pair)
    handled = 0

    def handler(number, frame):
        nonlocal handled
        handled += 1
        channel.send(("handler", handled))

    seen: list[tuple[object, ...]] = []

    def read() -> None:
        while (header := other.receive()[0]) != ("end",):
            seen.append(header)

    reader = threading.Thread(target=read)
    reader.start()
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
        sent = 0
        while sent < 2000 or handled < 50:
            channel.send(("body", sent), [b"x" * 1000])
            sent += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    channel.send(("end",))
    reader.join()
    assert [header[1] for header in seen if header[0] == "body"] == list(range(sent))
    assert sorted(header[1] for header in seen if header[0] == "handler") == list(range(1, handled + 1))


def test_a_loopback_pair_does_not_wait_for_acknowledgements(monkeypatch):
    monkeypatch.setattr(socket, "socketpair", loopback_pair)
    ours, theirs = process.make_pair()
    with ours, theirs:
        for end in (ours, theirs):
            assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# ---- descriptors that go along ----


@pytest.mark.skipif(not hasattr(socket, "send_fds"), reason="descriptors go through Unix sockets only")
def test_descriptors_go_along_with_their_message_whatever_the_pieces() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send_descriptors(ours, theirs)


def send_descriptors(ours: socket.socket, theirs: socket.socket) -> None:
    ours.setblocking(False)
    writer, channel = wire.Writer(ours), wire.Channel(theirs)
    files = []
    for number, size in enumerate([10, 3_000_000, 10, 0]):
        descriptors = Descriptors()
        for _ in range(number):
            read, write = os.pipe()
            os.write(write, bytes([number]))
            os.close(write)
            descriptors.numbers.append(read)
        files.append(descriptors.numbers)
        writer.put(wire.encode(("message", number), [b"x" * size]), descriptors)
    del descriptors
    sender = threading.Thread(target=flush_all, args=(writer, ours))
    sender.start()
    for number in range(4):
        (_, received), _ = channel.receive()
        found = channel.take(received)
        assert received == number == len(found)
        for descriptor in found:
            assert os.read(descriptor, 2) == bytes([number])
            assert not os.get_inheritable(descriptor) or sys.platform != "linux"
            os.close(descriptor)
    sender.join()
    for descriptor in itertools.chain(*files):
        with pytest.raises(OSError, match="Bad file descriptor"):  # closed as nothing referred to them any more
            os.fstat(descriptor)


def flush_all(writer: wire.Writer, sock: socket.socket) -> None:
    while writer.waiting:
        select.select([], [sock], [])
        writer.flush()
