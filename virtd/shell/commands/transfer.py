"""What is in volumes, to and from files."""

from __future__ import annotations

import os
from functools import partial

from virtd import constants as c
from virtd.drivers import holes
from virtd.errors import VirtError
from virtd.shell.command import Args, Command
from virtd.shell.commands.volume import find
from virtd.shell.failure import Failure, failing
from virtd.shell.progress import Progress
from virtd.shell.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from virtd.shell.streams import Transfer

_CHUNK = 1 << 18
_BLOCK = 4096  # holes are looked for in pieces of this size
_ZEROS = bytes(_BLOCK)


def _span(args: Args) -> tuple[int, int]:
    """Where in the volume to begin, and how much to take, in bytes."""
    return args.scaled("offset") or 0, args.scaled("length") or 0


def vol_upload(session: Session, args: Args) -> None:
    """virStorageVolUpload."""
    offset, length = _span(args)
    volume = find(session, args)
    name, path = args.required("vol"), args.required("file")
    flags = c.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM if args.flag("sparse") else 0
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror}") from None
    try:
        size = _size(file)
        total = min(length, size) if length and size else length or size
        with failing(f"cannot upload to volume {name}"):
            transfer = session.stream("storage_vol_upload", volume, offset, length, flags, sparse=bool(flags and size))
        with transfer, Progress(f"uploading {name}", total) as progress:
            try:
                parts = holes.send_file(transfer.descriptor, file, 0, total) if transfer.holes else None
                for sent in parts or _send(transfer.descriptor, file, length):
                    progress.show(sent)
            except OSError as error:
                raise _why(transfer, f"cannot send data to volume {name}", error) from None
            with failing(f"cannot close volume {name}"):
                transfer.finish()
    finally:
        os.close(file)


def vol_download(session: Session, args: Args) -> None:
    """virStorageVolDownload."""
    offset, length = _span(args)
    volume = find(session, args)
    name, path = args.required("vol"), args.required("file")
    sparse = args.flag("sparse")
    flags = c.VIR_STORAGE_VOL_DOWNLOAD_SPARSE_STREAM if sparse else 0
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise Failure(f"cannot create {path}: {error.strerror}") from None
    done = False
    try:
        with failing(f"cannot download from volume {name}"):
            total = length or session.call("storage_vol_get_info", volume)[1]
            transfer = session.stream("storage_vol_download", volume, offset, length, flags, sparse=sparse)
        with transfer, Progress(f"downloading {name}", total) as progress:
            received = 0
            try:
                for part in _received(transfer):
                    received += _store(file, part, sparse=sparse)
                    progress.show(received)
                if sparse:
                    os.ftruncate(file, received)
            except OSError as error:
                raise Failure(f"cannot receive data from volume {name}: {error.strerror}") from None
            with failing(f"cannot receive data from volume {name}"):
                transfer.finish()
        done = True
    finally:
        os.close(file)
        if not done:
            os.unlink(path)


def _why(transfer: Transfer, text: str, error: OSError) -> Failure:
    """A write failed because the other end has given up: what it says is the reason."""
    try:
        transfer.finish()
    except VirtError as reason:
        return Failure(text, cause=reason)
    return Failure(f"{text}: {error.strerror}")


def _size(file: int) -> int:
    """How long a file or device is, in bytes; 0 of what has no length."""
    try:
        size = os.lseek(file, 0, os.SEEK_END)
        os.lseek(file, 0, os.SEEK_SET)
    except OSError:
        return 0
    return size


def _send(descriptor: int, file: int, length: int) -> Iterator[int]:
    """Send a file, or so many bytes of it; yields how many have been sent."""
    sent = 0
    while data := os.read(file, min(_CHUNK, length - sent) if length else _CHUNK):
        _write_all(descriptor, data)
        sent += len(data)
        yield sent


def _received(transfer: Transfer) -> Iterator[bytes | int]:
    """What comes, part by part: data, and lengths of holes."""
    if transfer.holes:
        return holes.receive(transfer.descriptor)
    return iter(partial(os.read, transfer.descriptor, _CHUNK), b"")


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _store(file: int, data: bytes | int, *, sparse: bool) -> int:
    """Append data or a hole to a file, in which blocks of zeros become holes, too, if it may have any; their length."""
    if isinstance(data, int):
        os.lseek(file, data, os.SEEK_CUR)
        return data
    if not sparse:
        _write_all(file, data)
        return len(data)
    for start in range(0, len(data), _BLOCK):
        block = data[start : start + _BLOCK]
        if block == _ZEROS:
            os.lseek(file, _BLOCK, os.SEEK_CUR)
        else:
            _write_all(file, block)
    return len(data)


_SYNOPSIS = "<vol> <file> [--pool <string>] [--offset <number>] [--length <number>] [--sparse]"

COMMANDS = (
    Command("vol-download", _SYNOPSIS, "copy a volume's content to a file", vol_download, kinds={"file": "path"}),
    Command("vol-upload", _SYNOPSIS, "copy a file into a volume", vol_upload, kinds={"file": "path"}),
)
