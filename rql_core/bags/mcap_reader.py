"""Reads the messages of an MCAP file chunk by chunk, by time.

The reader of rosbags makes several small objects of each message, which takes a third of the time that decoding does,
and passes over chunks that have no index of their messages. Everything else of it is used as it is.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Collection, Generator
from operator import itemgetter

from rosbags.interfaces import Connection
from rosbags.rosbag2.errors import ReaderError
from rosbags.rosbag2.storage_mcap import ChunkInfo, McapReader, decompress, read_exact

Message = tuple[Connection, int, bytes]

_MESSAGE = 0x05
_MESSAGE_HEAD = struct.Struct("<BQHIQQ")  # MCAP specification, record 0x05: opcode, length, channel, sequence, 2 times
_HEAD_SIZE = 9  # of any record: opcode, length
_FIXED_SIZE = 22  # of the message's content, what comes before the data
_CHUNK_HEAD = struct.Struct("<QQQI")  # record 0x06: 2 times, size, checksum
_time_of = itemgetter(1)


class ChunkedMcapReader(McapReader):
    """rosbags' reader with another way through indexed chunks: one chunk at a time, and what overlaps the next."""

    def messages(
        self, connections: Collection[Connection], start: int | None = None, stop: int | None = None
    ) -> Generator[Message, None, None]:
        """(connection, receive time in ns, bytes) of each message of the connections, by receive time."""
        if start is not None or stop is not None or not self.chunks:
            yield from super().messages(connections, start, stop)
            return
        wanted = {connection.id: connection for connection in connections}
        chunks = sorted(
            (chunk for chunk in self.chunks if not chunk.channel_count or wanted.keys() & chunk.channel_count),
            key=lambda chunk: chunk.message_start_time,
        )
        waiting: list[Message] = []
        for index, chunk in enumerate(chunks):
            waiting += self._read_chunk(chunk, wanted)
            waiting.sort(key=_time_of)
            ready = len(waiting)
            if index + 1 < len(chunks):
                # What is later than the start of the next chunk may have to let some of its messages go first.
                ready = bisect_right(waiting, chunks[index + 1].message_start_time, key=_time_of)
            yield from waiting[:ready]
            waiting = waiting[ready:]

    def _read_chunk(self, chunk: ChunkInfo, wanted: dict[int, Connection]) -> list[Message]:
        assert self.bio is not None
        self.bio.seek(chunk.chunk_start_offset + _HEAD_SIZE)
        _, _, size, checksum = _CHUNK_HEAD.unpack(read_exact(self.bio, _CHUNK_HEAD.size))
        # The name of the compression with its length, and the length of the data, which the index says too.
        self.bio.seek(4 + len(chunk.compression) + 8, 1)
        content = decompress(read_exact(self.bio, chunk.compressed_size), chunk.compression, size, checksum)
        messages: list[Message] = []
        at, unpack = 0, _MESSAGE_HEAD.unpack_from
        while at < size:
            if content[at] == _MESSAGE:
                _, length, channel, _, stamp, _ = unpack(content, at)
                end = at + _HEAD_SIZE + length
                if length < _FIXED_SIZE or end > size:
                    raise ReaderError(f"A message of {length} bytes does not fit into its chunk.")
                if channel in wanted:
                    messages.append((wanted[channel], stamp, content[at + _HEAD_SIZE + _FIXED_SIZE : end]))
            else:
                end = at + _HEAD_SIZE + int.from_bytes(content[at + 1 : at + _HEAD_SIZE], "little")
                if end > size:
                    raise ReaderError("A record does not fit into its chunk.")
            at = end
        return messages
