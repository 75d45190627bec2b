"""Reads what was appended to a file since the last look: whole lines alone, however slowly they are written."""

from __future__ import annotations

from pathlib import Path

MOST_BYTES = 4_000_000  # of one read, so that one long record does not keep the others waiting


class Tail:
    """Remembers how far a file was read. A torn last line waits until the rest of it is there."""

    def __init__(self, path: Path, most: int = MOST_BYTES) -> None:
        self.path = path
        self.offset = 0
        self.size = -1  # as last seen
        self.changed_ns = 0
        self._most = most
        self._file = (0, 0)  # device and number: another file of the same name begins anew

    @property
    def behind(self) -> bool:
        """Whether the last read left something that was there already, more than a torn line."""
        return self._left

    @property
    def torn(self) -> bool:
        """Whether the file, as last seen, ends within a line."""
        return not self._left and self.size > self.offset

    _left = False

    def read(self) -> tuple[list[bytes], bool]:
        """(new whole lines without their ends, whether they begin the file anew). OSError where it cannot be read.

        At most `most` bytes are read at once; `behind` then says that there is more.
        """
        stat = self.path.stat()
        identity = (stat.st_dev, stat.st_ino)
        anew = identity != self._file or stat.st_size < self.offset
        if anew:
            self._file, self.offset = identity, 0
        elif stat.st_size == self.size and stat.st_mtime_ns == self.changed_ns and not self._left:
            return [], False
        self.size, self.changed_ns, self._left = stat.st_size, stat.st_mtime_ns, False
        if stat.st_size == self.offset:
            return [], anew
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = file.read(min(self._most, stat.st_size - self.offset))
            end = data.rfind(b"\n") + 1
            while not end and self.offset + len(data) < stat.st_size:  # one line longer than a read
                more = file.read(self._most)
                if not more:
                    break
                data += more
                end = data.rfind(b"\n") + 1
        self._left = self.offset + len(data) < stat.st_size
        self.offset += end
        return data[:end].splitlines(), anew
