"""Memory for large messages over all connections."""

from __future__ import annotations

import random

from gateway.web.large_messages import LargeMessages


class Reader:
    def __init__(self) -> None:
        self.resumed = 0

    def resume_large(self) -> None:
        self.resumed += 1


def test_beyond_the_limit_all_but_the_first_wait() -> None:
    large = LargeMessages(bytes_max=100, message_bytes_max=40)
    first, second, third = Reader(), Reader(), Reader()
    assert large.hold(first, 30) and large.hold(second, 30)
    assert not large.hold(third, 10)
    assert not large.hold(second, 31)
    assert large.hold(first, 40)
    assert large.hold(first, 0)
    assert (second.resumed, third.resumed) == (1, 1)


def test_a_connection_that_is_gone_waits_no_more() -> None:
    large = LargeMessages(bytes_max=10, message_bytes_max=10)
    first, second = Reader(), Reader()
    assert large.hold(first, 5) and not large.hold(second, 5)
    assert large.hold(second, 0)
    assert large.hold(first, 0)
    assert (large.held_bytes, second.resumed) == (0, 0)


def test_every_message_is_completed_within_the_limit() -> None:
    """Random readers: whatever the order, the limit holds and no two wait for each other."""
    for seed in range(50):
        choose = random.Random(seed)
        large = LargeMessages(bytes_max=100, message_bytes_max=40)
        sizes = {Reader(): choose.randint(1, 40) for _ in range(20)}
        held: dict[Reader, int] = dict.fromkeys(sizes, 0)
        paused: dict[Reader, int] = {}
        while held:
            free = [
                reader for reader in held if reader not in paused or reader.resumed > paused[reader]
            ]
            assert free, "all wait"
            reader = choose.choice(free)
            paused.pop(reader, None)
            held[reader] += 1
            if held[reader] == sizes[reader]:
                assert large.hold(reader, 0)
                del held[reader]
            elif not large.hold(reader, held[reader]):
                paused[reader] = reader.resumed
            # Each of those that wait has read one piece too many.
            assert large.held_bytes <= 100 + len(held)
        assert large.held_bytes == 0
