from __future__ import annotations

from tools.lab.fuzz.messages import bus_message, request, talk


def test_a_seed_and_a_number_make_the_same_message_again() -> None:
    for number in range(200):
        assert bus_message(4, number) == bus_message(4, number)
        assert talk(4, number, 5) == talk(4, number, 5)
        assert request(4, number) == request(4, number)
    assert bus_message(4, 1) != bus_message(5, 1)


def test_every_counter_of_the_broker_is_aimed_at() -> None:
    expected = {bus_message(1, number).expected for number in range(3_000)}
    assert {
        *("front_malformed", "front_unexpected", "identity_mismatch"),
        *("back_malformed", "back_unexpected", "bad_ready", "unknown_worker"),
        *("stored_for_unknown_gateway", "system_refused"),
    } <= expected
