"""Pages of the history and searches in it, with many stored sessions.

The texts have words as often as a language has them (Zipf's law), half of them in Chinese: a
frequent word finds most sessions, and a rare one a few.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from msgspec.structs import replace

from persistence.history import Cursor, HistoryQuery
from persistence.migrate import migrate
from persistence.reads import SessionReader
from persistence.search_terms import terms_of
from runtime.settings import DatabaseSettings
from tools.lab.bench.figures import Figure
from tools.lab.harness.process import LoggedProcess
from tools.lab.loadtest.figures import percentile
from wire.records import DEFAULT_TENANT

SESSIONS = 100_000
PAGES = 300
SEARCHES = 300
SCANS = 5
WORDS = 20_000
"""Different words of each language."""
TEXT_WORDS = (5, 120)
USERS = 500
FIRST_S, EVERY_S = 1_767_268_800, 20
"""When the first session began, seconds since 1970, and the time from one to the next."""
PAGE_MS_MAX = 50.0
SEARCH_MS_MAX = 100.0
_COPY = """
COPY asr_sessions (id, user_id, status, text, terms, duration_ms, chunk_count, segment_count,
                   created_at, completed_at, started) FROM STDIN
"""
_SCAN = "SELECT id FROM asr_sessions WHERE text ILIKE %s ORDER BY created_at DESC LIMIT 50"


class Vocabulary:
    """Words with the frequencies of a language, English and Chinese."""

    def __init__(self, chance: random.Random) -> None:
        letters, characters = "etaoinshrdlu", [chr(0x4E00 + n) for n in range(3_000)]
        self.english = self._different(chance, letters, (3, 9))
        self.chinese = self._different(chance, characters, (1, 3))
        self._cumulated = list(itertools.accumulate(1 / rank for rank in range(1, WORDS + 1)))
        self._chance = chance

    @staticmethod
    def _different(
        chance: random.Random, letters: str | list[str], lengths: tuple[int, int]
    ) -> list[str]:
        found: dict[str, None] = {}
        while len(found) < WORDS:
            found["".join(chance.choices(letters, k=chance.randint(*lengths)))] = None
        return list(found)

    def text(self, *, chinese: bool) -> str:
        words = self.chinese if chinese else self.english
        count = self._chance.randint(*TEXT_WORDS)
        return ("" if chinese else " ").join(
            self._chance.choices(words, cum_weights=self._cumulated, k=count)
        )

    def wanted(self) -> str:
        """A search: one or two words of one language, from the most frequent to the rarest."""
        words = self._chance.choice((self.english, self.chinese))
        ranks = [int(WORDS ** self._chance.random()) - 1 for _ in range(self._chance.randint(1, 2))]
        return " ".join(words[rank] for rank in ranks)


@contextlib.contextmanager
def database() -> Iterator[str]:
    """The URL of an empty database of a PostgreSQL of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        data_dir = Path(folder) / "data"
        settings = DatabaseSettings(data_dir=data_dir, database_url=None, db_host=None)
        unused = {"DATA_DIR": str(data_dir), "REDIS_URL": "redis://127.0.0.1:1"}
        with LoggedProcess("tools.embedded", **unused) as process:
            process.event("embedded_services_ready")
            yield settings.database_address()


def fill(url: str, vocabulary: Vocabulary, chance: random.Random) -> None:
    """Store ``SESSIONS`` sessions as persistence does, by COPY."""
    with psycopg.connect(url, autocommit=True) as connection:
        migrate(connection)
        with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            for number in range(SESSIONS):
                text = vocabulary.text(chinese=number % 2 == 0)
                at = datetime.fromtimestamp(FIRST_S + number * EVERY_S, UTC)
                terms = " ".join(f"'{term}'" for term in terms_of([text]))
                status = "completed" if chance.random() < 0.95 else "abandoned"
                user = f"user-{chance.randrange(USERS)}"
                counts = (len(text) * 60, 20, 5)
                copy.write_row((f"s{number:08}", user, status, text, terms, *counts, at, at, True))
        connection.execute("VACUUM (ANALYZE) asr_sessions")


async def milliseconds(
    reader: SessionReader, next_query: Callable[[], HistoryQuery], count: int
) -> list[float]:
    """Return the time of each read."""
    spent_ms = []
    for _ in range(count):
        asked = next_query()
        began_s = time.perf_counter()
        await reader.history(asked)
        spent_ms.append((time.perf_counter() - began_s) * 1_000)
    return spent_ms


def page_query(chance: random.Random) -> HistoryQuery:
    """A page anywhere in the history, of everybody or of one user."""
    created_us = (FIRST_S + chance.randrange(SESSIONS) * EVERY_S) * 1_000_000
    cursor = Cursor(created_us=created_us, session_id="s")
    asked = HistoryQuery(tenant=DEFAULT_TENANT, cursor=cursor if chance.random() < 0.9 else None)
    if chance.random() < 0.3:
        return replace(asked, user_id=f"user-{chance.randrange(USERS)}")
    return asked


def scan_ms(url: str, vocabulary: Vocabulary) -> float:
    """Return the time of a search without an index."""
    with psycopg.connect(url, autocommit=True) as connection:
        began_s = time.perf_counter()
        for _ in range(SCANS):
            connection.execute(_SCAN, (f"%{vocabulary.wanted()}%",)).fetchall()
        return (time.perf_counter() - began_s) * 1_000 / SCANS


async def _measured(
    url: str, vocabulary: Vocabulary, chance: random.Random
) -> tuple[list[float], list[float]]:
    reader = SessionReader(url)
    await reader.open()
    try:
        pages = await milliseconds(reader, lambda: page_query(chance), PAGES)
        searches = await milliseconds(
            reader, lambda: HistoryQuery(tenant=DEFAULT_TENANT, words=vocabulary.wanted()), SEARCHES
        )
    finally:
        await reader.close()
    return pages, searches


def measure() -> list[Figure]:
    chance = random.Random(0)
    vocabulary = Vocabulary(chance)
    with database() as url:
        fill(url, vocabulary, chance)
        pages, searches = asyncio.run(_measured(url, vocabulary, chance))
        scanned_ms = scan_ms(url, vocabulary)
    return [
        Figure(
            what=f"page of 50 of {SESSIONS:,} sessions, p95 of {PAGES}",
            value=percentile(pages, 95),
            unit="ms",
            reference=f"median {percentile(pages, 50):.1f} ms",
            at_most=PAGE_MS_MAX,
        ),
        Figure(
            what=f"search in the texts of {SESSIONS:,} sessions, p95 of {SEARCHES}",
            value=percentile(searches, 95),
            unit="ms",
            reference=f"median {percentile(searches, 50):.1f} ms; "
            f"without an index {scanned_ms:.0f} ms",
            at_most=SEARCH_MS_MAX,
        ),
    ]
