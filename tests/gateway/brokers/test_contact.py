from __future__ import annotations

import pytest

from gateway.brokers.contact import (
    SETTLE_S,
    SILENCE_S,
    BrokerContact,
    ContactChanged,
    JobsLost,
)


def changed(event: str, epoch: str, silent_s: float = 0.0) -> ContactChanged:
    return ContactChanged(event=event, epoch=epoch, silent_s=silent_s)  # type: ignore[arg-type]


@pytest.fixture
def contact() -> BrokerContact:
    """In contact with the broker of epoch ``one`` at 0 s."""
    made = BrokerContact()
    assert made.note("one", 0.0) == [changed("broker_found", "one"), JobsLost()]
    return made


def test_a_broker_of_a_new_epoch_has_lost_all_jobs(contact: BrokerContact) -> None:
    assert contact.note("one", 0.25) == []
    assert contact.note("two", 0.75) == [changed("broker_restarted", "two", 0.5), JobsLost()]
    assert contact.note("two", 1.0) == []


def test_after_a_silence_delivered_messages_arrive_first(contact: BrokerContact) -> None:
    assert contact.note("one", SILENCE_S) == [changed("broker_silence_ended", "one", SILENCE_S)]
    assert contact.note("one", SILENCE_S + SETTLE_S / 2) == []
    assert contact.note("one", SILENCE_S + SETTLE_S) == [JobsLost()]
    assert contact.note("one", SILENCE_S + SETTLE_S + 1) == []


def test_jobs_are_lost_once_if_the_broker_restarts_after_a_silence(contact: BrokerContact) -> None:
    contact.note("one", SILENCE_S)
    assert JobsLost() in contact.note("two", SILENCE_S + 0.1)
    assert contact.note("two", SILENCE_S + SETTLE_S) == []


def test_a_shorter_silence_loses_nothing(contact: BrokerContact) -> None:
    assert contact.note("one", SILENCE_S - 0.1) == []


def test_the_answer_to_the_oldest_hello_is_late(contact: BrokerContact) -> None:
    assert contact.answer_delay_s(9.0) == 0
    contact.note_hello(1.0)
    contact.note_hello(1.25)
    assert contact.answer_delay_s(3.0) == 2.0
    contact.note_welcome()
    assert contact.answer_delay_s(3.0) == 1.75
    contact.note_welcome()
    contact.note_welcome()
    assert contact.answer_delay_s(9.0) == 0


def test_on_a_new_connection_no_answer_is_expected_and_jobs_are_lost(
    contact: BrokerContact,
) -> None:
    contact.note_hello(0.5)
    contact.reconnected(1.0)
    assert contact.answer_delay_s(9.0) == 0
    assert contact.note("one", 1.0 + SETTLE_S) == [JobsLost()]
