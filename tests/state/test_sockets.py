"""Unix sockets at paths longer than a socket address takes."""

import os
import time
from pathlib import Path

import pytest

from virtd.errors import VirtError
from virtd.state import sockets


@pytest.mark.parametrize("length", [10, 200])
def test_listen_and_connect(tmp_path: Path, length: int) -> None:
    directory = tmp_path / ("d" * length)
    directory.mkdir()
    path = str(directory / "monitor.sock")
    with sockets.listen(path, mode=0o620) as server:
        assert os.stat(path).st_mode & 0o777 == 0o620
        with sockets.connect(path, timeout=5) as client:
            peer, _ = server.accept()
            with peer:
                client.sendall(b"hello")
                assert peer.recv(10) == b"hello"


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    sockets.listen(path).close()
    with pytest.raises(ConnectionRefusedError):
        sockets.connect(path)
    with sockets.listen(path), sockets.connect(path):
        pass


def test_a_missing_directory_is_an_error_naming_the_path(tmp_path: Path) -> None:
    with pytest.raises(VirtError, match=r"cannot listen on socket '.*/none/sock': No such file or directory"):
        sockets.listen(str(tmp_path / "none" / "sock"))


def test_waiting_for_a_full_queue_is_bounded(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    with sockets.listen(path, backlog=0), sockets.connect(path, timeout=0.1):
        started = time.monotonic()
        with pytest.raises(BlockingIOError):
            sockets.connect(path, timeout=0.1)
        assert 0.1 <= time.monotonic() - started < 5
