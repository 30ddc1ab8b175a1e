"""What is in volumes, to and from files."""

import os

from virtd import constants as c
from virtd.errors import VirtError
from virtd.shell.command import Args, Command
from virtd.shell.commands.volume import find
from virtd.shell.failure import Failure, failing
from virtd.shell.progress import Progress
from virtd.shell.session import Session

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
        total = length or os.fstat(file).st_size
        with failing(f"cannot upload to volume {name}"):
            transfer = session.stream("storage_vol_upload", volume, offset, length, flags)
        with transfer, Progress(f"uploading {name}", total) as progress:
            sent = 0
            try:
                while data := os.read(file, min(_CHUNK, length - sent) if length else _CHUNK):
                    _write_all(transfer.descriptor, data)
                    sent += len(data)
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
            transfer = session.stream("storage_vol_download", volume, offset, length, flags)
        with transfer, Progress(f"downloading {name}", total) as progress:
            received = 0
            try:
                while data := os.read(transfer.descriptor, _CHUNK):
                    _store(file, data, sparse=sparse)
                    received += len(data)
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


def _why(transfer: object, text: str, error: OSError) -> Failure:
    """A write failed because the other end has given up: what it says is the reason."""
    try:
        transfer.finish()  # type: ignore[attr-defined]
    except VirtError as reason:
        return Failure(text, cause=reason)
    return Failure(f"{text}: {error.strerror}")


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _store(file: int, data: bytes, *, sparse: bool) -> None:
    """Append to a file; blocks of zeros become holes, if it may have any."""
    if not sparse:
        _write_all(file, data)
        return
    for start in range(0, len(data), _BLOCK):
        block = data[start : start + _BLOCK]
        if block == _ZEROS:
            os.lseek(file, _BLOCK, os.SEEK_CUR)
        else:
            _write_all(file, block)


_SYNOPSIS = "<vol> <file> [--pool <string>] [--offset <number>] [--length <number>] [--sparse]"

COMMANDS = (
    Command("vol-download", _SYNOPSIS, "copy a volume's content to a file", vol_download, kinds={"file": "path"}),
    Command("vol-upload", _SYNOPSIS, "copy a file into a volume", vol_upload, kinds={"file": "path"}),
)
