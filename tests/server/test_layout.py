"""What every worker uses lies close together in memory."""

import subprocess
import sys

from tests.server.harness import TOP

HOLES = """if True:
    from virtd.server import layout
    for size in range(layout.STEP, layout.SMALL + 1, layout.STEP):
        one, other = layout._block(size), layout._block(size)
        assert one is not other and size - layout.STEP < one.__sizeof__() <= size, (size, one)
    layout.fill_holes()
    made = [bytes(100) for _ in range(50)]
    print(len({id(one) // 4096 for one in made}))
"""

CODE = """if True:
    from types import FunctionType
    from virtd.server import layout

    # Of four hundred functions that were made one behind the other a tenth is called.
    source = "def f(x): return x + {0}, [y * {0} for y in range(x)], lambda: x - {0}"
    made = []
    for number in range(400):
        space = {}
        exec(source.format(1000 + number), space)
        made.append(space["f"])
    twin = FunctionType(made[0].__code__, {})
    called = [(1000 + 10 * number, made[10 * number]) for number in range(40)]
    old = [f.__code__ for f in made]

    def pages():
        return len({id(f.__code__) // 4096 for _, f in called})

    before = pages()
    layout.gather(lambda: [f(2) for _, f in called])
    assert twin.__code__ is made[0].__code__
    for number, f in called:
        total, several, inner = f(2)
        assert (total, several, inner()) == (2 + number, [0, number], 2 - number)
        # The list's code was called, that of the lambda was not.
        now = [one for one in f.__code__.co_consts if hasattr(one, "co_code")]
        was = [one for one in old[number - 1000].co_consts if hasattr(one, "co_code")]
        assert [one is other for one, other in zip(now, was)] == [False, True]
    print([f.__code__ is not code for f, code in zip(made, old)].count(True), before, pages())
"""


def output(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=TOP).stdout


def test_what_is_made_later_lies_together():
    assert int(output(HOLES)) <= 4


def test_code_that_runs_lies_together():
    moved, before, after = map(int, output(CODE).split())
    assert moved == 40
    assert after <= 8 < 20 <= before
