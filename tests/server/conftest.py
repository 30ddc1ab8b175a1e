"""A running server for a test."""

import pytest

from tests.server.harness import Server


@pytest.fixture
def serve(tmp_path):
    """Start servers below the test's directory; they end with the test."""
    servers = []

    def start(*arguments, root=None, **options):
        server = Server(root or tmp_path / "root", *arguments, **options)
        servers.append(server)
        return server

    yield start
    for server in reversed(servers):
        server.stop()


@pytest.fixture
def server(serve):
    """A server without any settings."""
    return serve()


@pytest.fixture
def client(server):
    """A client of it that has opened its connection."""
    with server.client() as client:
        yield client
