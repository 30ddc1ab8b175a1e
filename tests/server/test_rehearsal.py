"""The rehearsal before the first fork: it leaves nothing, and swallows no signal."""

import os
import subprocess
import sys

from tests.server.harness import TOP

PROGRAM = """if True:
    import gc, os, signal, sys
    from virtd.server import process, rehearsal
    from virtd.server.config import Config
    from virtd.state.paths import below

    def descriptors():
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    def play(*arguments):
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        played(*arguments)

    paths, config = below(sys.argv[1]), Config()
    played, rehearsal._play = rehearsal._play, play
    rehearsal.prepare(config, paths)
    print(*sorted(signal.Signals(number).name for number in process.Signals().read()))
    rehearsal._play = played
    before = descriptors()
    rehearsal._rehearse(config, paths, 1)
    print(descriptors() - before)
    print(open(f"/proc/self/task/{os.getpid()}/children").read())
    print(os.getpgid(0) == int(sys.argv[2]))
"""


def test_nothing_is_left(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(os.getpgid(0))]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(TOP)})
    assert run.stdout.splitlines() == ["SIGHUP SIGTERM", "0", "", "True"], run.stderr
    assert not [place for place, _, _ in os.walk(tmp_path) if "rehearsal" in place]
