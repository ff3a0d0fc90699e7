"""Which errors are the bag's own, so that `bad_bags: skip` may leave the bag out, and which are not.

A full disk, a file that may not be read or memory that ran out would leave good bags out, and another run, or another
machine, would make another dataset. Such errors stop a conversion whatever the contract says.
test/core/bags/test_skipping.py pins both sides.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

# What a damaged bag itself brings about: its metadata names files that are not there or no files, its offsets point
# before the beginning or past the end. Other errors of the operating system are taken to be the machine's.
_NAMES = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
_PLACES = (errno.EINVAL, errno.EOVERFLOW)
# SQLite's own words, which are the same through every library that wraps it.
_OF_SQLITE = ("database or disk is full", "disk I/O error", "out of memory")


def is_the_bags_own(error: BaseException) -> bool:
    """Whether the error comes from what is in the bag, and would come again wherever it is read."""
    return not any(_is_the_machines(each) for each in _behind(error))


def _is_the_machines(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno not in (None, *_NAMES, *_PLACES)
    return isinstance(error, MemoryError) or any(words in str(error) for words in _OF_SQLITE)


def _behind(error: BaseException) -> Iterator[BaseException]:
    """What led to the error, one from another, also where `raise ... from None` hides it from readers."""
    seen: set[int] = set()
    cause = error.__cause__ or error.__context__
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__
