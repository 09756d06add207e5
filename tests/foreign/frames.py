"""A gRPC client that does with each HTTP/2 frame what it is told to.

Libraries decide by themselves when to read, to acknowledge, to send a call again. Here the test decides: a connection reads
only while `reads` is set, answers PING only while `acknowledges` is set, and sends a request in parts if it is asked to. So
it can be at any point of the protocol when something pauses, and says exactly what became of each call.

Nothing happens but in `turn`, which all connections of a test share: a test that does not call it is, for the server,
a client that is frozen while its kernel lives.
"""

import select
import ssl
import struct
import time

import hpack

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_ACK = _END_STREAM = 1
_END_HEADERS, _PADDED, _PRIORITY = 4, 8, 32
_INITIAL_WINDOW_SIZE = 4
_REFUSED_STREAM = 7
_LONGEST_FRAME = 16384
_WINDOW = 65535
_NO_LIMIT = 2**31 - 1


class Call:
    """A call with one request. `answers` is what its handler should say."""

    def __init__(self, stream, request, answers):
        self.stream = stream
        self.answers = answers
        self.waiting = bytearray(_message(request))  # what is still to be sent
        self.hold_back = 0  # so much of it waits for `send_rest`
        self.window = 0
        self.said_end = False
        self.headers_end = None  # counted in bytes of the connection
        self.received = bytearray()
        self.headers = {}
        self.reset = None
        self.ended = False

    def send_rest(self):
        self.hold_back = 0

    @property
    def landed(self):
        expected = b"".join(map(_message, self.answers))
        return self.ended and self.headers.get("grpc-status") == "0" and self.received == expected


class Connection:
    """`window` is how much the server may send before it is told that there is room for more: the smallest that
    there is, or as good as no limit with `window=None`."""

    def __init__(self, connected, authority="greeter", window=_WINDOW):
        self.socket = connected
        self.socket.setblocking(False)
        self.reads = self.acknowledges = True
        self.calls = []
        self.goaways = []  # the last streams that they name
        self.pings = []  # not yet acknowledged
        self.closed = None  # why
        self.is_agreed = False  # the server has acknowledged the settings
        self._authority = authority
        self._is_tls = isinstance(connected, ssl.SSLSocket)
        self._hands_are_shaken = not self._is_tls
        self._window = _NO_LIMIT if window is None else window
        self._encoder, self._decoder = hpack.Encoder(), hpack.Decoder()
        self._block, self._block_of = bytearray(), None
        self._in, self._out = bytearray(), bytearray()
        self._queued = self._written = 0
        self._next_stream = 1
        self._room, self._room_of_streams = _WINDOW, _WINDOW

    def open(self, length=None):
        """Says the preface and the settings, or only so many bytes of it."""
        settings = struct.pack("!HI", _INITIAL_WINDOW_SIZE, self._window)
        beginning = _PREFACE + _frame(_SETTINGS, 0, 0, settings)
        if self._window > _WINDOW:
            beginning += _frame(_WINDOW_UPDATE, 0, 0, struct.pack("!I", self._window - _WINDOW))
        self._queue(beginning[:length])

    def call(self, method, request, answers, hold_back=0):
        """Begins a call, and sends it but for the last `hold_back` bytes."""
        call = Call(self._next_stream, request, answers)
        self._next_stream += 2
        headers = [
            (":method", "POST"),
            (":scheme", "https" if self._is_tls else "http"),
            (":path", method),
            (":authority", self._authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ]
        self._queue(_frame(_HEADERS, _END_HEADERS, call.stream, self._encoder.encode(headers)))
        call.headers_end, call.window, call.hold_back = self._queued, self._room_of_streams, hold_back
        self.calls.append(call)
        return call

    @property
    def last_taken(self):
        """The last stream that the server has acted on, or may act on, as far as it has said."""
        return min(self.goaways, default=_NO_LIMIT)

    def became_of(self, call):
        """Says "landed"; "excluded" if the server has said that nobody acted on it; "unsent" if it never left; or "lost"."""
        if call.landed:
            return "landed"
        if call.stream > self.last_taken or call.reset == _REFUSED_STREAM:
            return "excluded"
        return "unsent" if self._written < call.headers_end else "lost"

    def is_over(self, call):
        return call.ended or call.reset is not None or self.closed is not None or call.stream > self.last_taken

    @property
    def is_flushed(self):
        """Whether the kernel has all that there was to send."""
        return not self._out and all(len(call.waiting) <= call.hold_back for call in self.calls)

    def wants_to_write(self):
        return bool(self._out) and self.closed is None

    def step(self):
        """Does what can be done without waiting."""
        if self.closed is not None:
            return
        try:
            if not self._hands_are_shaken and not self._shake_hands():
                return
            self._acknowledge()
            self._pour()
            self._flush()
            if self.reads:
                self._read()
                self._acknowledge()
                self._pour()
                self._flush()
        except OSError as error:
            self.closed = f"{type(error).__name__}: {error}"

    def close(self):
        self.closed = self.closed or "by the client"
        self.socket.close()

    def _shake_hands(self):
        try:
            self.socket.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        self._hands_are_shaken = True
        return True

    def _queue(self, data):
        self._out += data
        self._queued += len(data)

    def _acknowledge(self):
        while self.acknowledges and self.pings:
            self._queue(_frame(_PING, _ACK, 0, self.pings.pop(0)))

    def _pour(self):
        """Queues as much of the requests as the server has room for."""
        for call in self.calls:
            while not call.said_end and not call.ended and call.reset is None:
                length = min(len(call.waiting) - call.hold_back, self._room, call.window, _LONGEST_FRAME)
                is_last = length == len(call.waiting)
                if length <= 0 and not is_last:
                    break
                flags = _END_STREAM if is_last else 0
                self._queue(_frame(_DATA, flags, call.stream, bytes(call.waiting[:length])))
                del call.waiting[:length]
                self._room -= length
                call.window -= length
                call.said_end = is_last

    def _flush(self):
        try:
            while self._out:
                sent = self.socket.send(self._out[:262144])
                del self._out[:sent]
                self._written += sent
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        except (BrokenPipeError, ConnectionResetError):
            # What the server had said before may still be read.
            self._read()
            raise

    def _read(self):
        try:
            while True:
                data = self.socket.recv(262144)
                if not data:
                    self.closed = "by the server"
                    return
                self._in += data
                self._take_frames()
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass

    def _take_frames(self):
        begin = 0
        while len(self._in) - begin >= 9:
            length = int.from_bytes(self._in[begin : begin + 3], "big")
            end = begin + 9 + length
            if len(self._in) < end:
                break
            kind, flags = self._in[begin + 3], self._in[begin + 4]
            stream = int.from_bytes(self._in[begin + 5 : begin + 9], "big") & _NO_LIMIT
            self._take(kind, flags, stream, bytes(self._in[begin + 9 : end]))
            begin = end
        del self._in[:begin]

    def _take(self, kind, flags, stream, content):
        if kind in (_HEADERS, _DATA) and flags & _PADDED:
            content = content[1 : len(content) - content[0]]
        if kind == _HEADERS and flags & _PRIORITY:
            content = content[5:]
        if kind == _SETTINGS and not flags & _ACK:
            self._take_settings(content)
        elif kind == _SETTINGS:
            self.is_agreed = True
        elif kind == _PING and not flags & _ACK:
            self.pings.append(content)
        elif kind == _GOAWAY:
            self.goaways.append(struct.unpack_from("!I", content)[0] & _NO_LIMIT)
        elif kind == _WINDOW_UPDATE:
            self._give_room(stream, struct.unpack("!I", content)[0])
        elif kind in (_HEADERS, _CONTINUATION):
            self._take_headers(kind, flags, stream, content)
        elif kind == _DATA:
            self._take_data(flags, stream, content)
        elif kind == _RST_STREAM:
            self._named(stream).reset = struct.unpack("!I", content)[0]

    def _take_settings(self, content):
        for name, value in struct.iter_unpack("!HI", content):
            if name == _INITIAL_WINDOW_SIZE:
                for call in self.calls:
                    call.window += value - self._room_of_streams
                self._room_of_streams = value
        self._queue(_frame(_SETTINGS, _ACK, 0))

    def _give_room(self, stream, more):
        if stream == 0:
            self._room += more
        else:
            self._named(stream).window += more

    def _take_headers(self, kind, flags, stream, content):
        if kind == _HEADERS:
            self._block_of = (stream, flags & _END_STREAM)
        self._block += content
        if flags & _END_HEADERS:
            stream, ends = self._block_of
            call = self._named(stream)
            call.headers.update(self._decoder.decode(bytes(self._block)))
            call.ended = call.ended or bool(ends)
            self._block.clear()

    def _take_data(self, flags, stream, content):
        call = self._named(stream)
        call.received += content
        call.ended = call.ended or bool(flags & _END_STREAM)
        if content:
            update = struct.pack("!I", len(content))
            self._queue(_frame(_WINDOW_UPDATE, 0, 0, update))
            if not call.ended:
                self._queue(_frame(_WINDOW_UPDATE, 0, stream, update))

    def _named(self, stream):
        return self.calls[(stream - 1) // 2]


def turn(connections, wait_s):
    """Lets all connections do what there is to do, and waits no longer than this for something."""
    alive = [it for it in connections if it.closed is None]
    readers = [it.socket for it in alive if it.reads]
    writers = [it.socket for it in alive if it.wants_to_write()]
    if readers or writers:
        select.select(readers, writers, [], wait_s)
    else:
        time.sleep(wait_s)
    for connection in alive:
        connection.step()


def _frame(kind, flags, stream, content=b""):
    return len(content).to_bytes(3, "big") + struct.pack("!BBI", kind, flags, stream) + content


def _message(content):
    return b"\0" + struct.pack("!I", len(content)) + content
