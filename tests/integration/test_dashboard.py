"""The dashboard in a real browser: a gateway with one session and one refused client. Screenshots
are written to build/screenshots."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, Route, expect

from asr_client import ServerBusyError, connect
from tests.integration.browser import look_at, running_browser, visiting
from tests.integration.speech import spoken
from tools.lab.harness.stack import Stack


@pytest.fixture
def gateway_of_one(stack: Stack, redis_database: str) -> Iterator[Stack]:
    """``gateway8``, with room for one connection, whose figures are this test's own."""
    stack.start("gateway8", MAX_CONNECTIONS="1", REDIS_URL=redis_database)
    stack.wait_ready("gateway8")
    yield stack
    with stack.processes.pop("gateway8"):
        pass


@pytest.fixture
def page(gateway_of_one: Stack) -> Iterator[Page]:
    with (
        running_browser() as browser,
        visiting(browser, gateway_of_one.http_url("gateway8")) as visitor,
    ):
        yield visitor


class Someone(threading.Thread):
    """Speaks, stays connected while another client is refused, and leaves on request."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self.spoke = threading.Event()
        self.may_go = threading.Event()
        self.refusal: ServerBusyError | None = None

    def run(self) -> None:
        asyncio.run(self._visit())

    async def _visit(self) -> None:
        async with connect(self._url) as session:
            await session.send(spoken(8_100, digits=(6, 6)).pcm.tobytes())
            await anext(session.events())
            try:
                async with connect(self._url):
                    pass
            except ServerBusyError as error:
                self.refusal = error
            self.spoke.set()
            await asyncio.to_thread(self.may_go.wait, 60)
            await session.finish()
            await session.final()


def test_the_dashboard_shows_sessions_latency_and_workers(
    page: Page, gateway_of_one: Stack
) -> None:
    someone = Someone(gateway_of_one.url("gateway8"))
    someone.start()
    try:
        assert someone.spoke.wait(60)
        assert someone.refusal is not None
        page.goto("/dashboard")
        expect(page.locator("#sessions")).to_have_text("1")
        expect(page.locator("#sessions-note")).to_contain_text("the gateways started: 1.")
        expect(page.locator("#latency")).to_have_text(re.compile(r"^[\d.]+\sm?s$"))
        expect(page.locator("#latency-note")).to_have_text(
            re.compile(r"^p50 [\d.]+\sm?s, p99 [\d.]+\sm?s$")
        )
        expect(page.locator("#backlog")).to_have_text(re.compile(r"^\d+$"))
        expect(page.locator("#queue-note")).to_contain_text("wait about")
        expect(page.locator("#models tr").first).to_contain_text("of 2")
        expect(page.locator("#gateways tr").first).to_contain_text("0.1.0")
        # The broker of the shared pipeline writes to another Redis database.
        expect(page.locator("#workers")).to_contain_text("Unknown")
        expect(page.locator("#incomplete")).to_contain_text("Not all of the system is known")
        expect(page.locator("#errors dt")).to_have_text("All connections are in use.")
        expect(page.locator("#errors dd")).to_have_text("1")
        look_at(page, "dashboard-busy")
    finally:
        someone.may_go.set()
        someone.join()
    expect(page.locator("#sessions")).to_have_text("0")
    # Whatever was to be stored is.
    expect(page.locator("#backlog")).to_have_text("0")


def test_a_model_of_many_languages_fits_the_screen(page: Page) -> None:
    def answer(route: Route) -> None:
        system = route.fetch().json()
        system["served"][0]["abilities"]["languages"] = [f"l{number}" for number in range(99)]
        route.fulfill(json=system)

    page.route("**/api/v1/system", answer)
    page.goto("/dashboard")
    expect(page.locator("#models tr").first.locator("td").last).to_have_text("99")


def test_old_figures_are_called_old(page: Page) -> None:
    page.goto("/dashboard")
    expect(page.locator("#sessions")).to_have_text("0")

    def lose(route: Route) -> None:
        route.abort()

    page.route("**/api/v1/system", lose)
    expect(page.get_by_role("alert")).to_have_text(
        "No answer from the server; these are the last figures."
    )
    expect(page.locator("#sessions")).to_have_text("0")
    page.unroute("**/api/v1/system")
    expect(page.locator("#stale")).to_be_hidden()


def test_the_dashboard_is_that_of_the_system_whichever_gateway_answers(stack: Stack) -> None:
    stack.start("gateway7")
    stack.wait_ready("gateway7")
    try:
        with running_browser() as browser:
            for name in ("gateway", "gateway7"):
                with visiting(browser, stack.http_url(name)) as page:
                    page.goto("/dashboard")
                    expect(page.locator("#gateway")).to_have_text(
                        "Gateways shown: 2; known to the broker: 2."
                    )
                    expect(page.locator("#gateways tr")).to_have_count(2)
                    expect(page.locator("#incomplete")).to_be_hidden()
                    figures = page.locator("#workers tr").first.locator("td").all_text_contents()
                    assert figures[:2] == ["demo", "cpu"]
                    assert re.fullmatch(r"\d+ %", figures[6])
                    assert re.fullmatch(r"[1-9][\d,]* MiB", figures[7])
                    services = page.locator("#services")
                    for service in ("Broker", "Persistence"):
                        expect(services.locator("tr", has_text=service)).to_contain_text("MiB")
                    for store in ("PostgreSQL", "Redis"):
                        expect(services.locator("tr", has_text=store)).to_contain_text("answers")
                    look_at(page, "dashboard")
                    page.get_by_role("button", name="中文").click()
                    # On a narrow screen this name stands above each value.
                    column = page.locator("#gateways td").nth(1)
                    expect(column).to_have_attribute("data-column", "连接")
                    look_at(page, "dashboard-zh")
    finally:
        with stack.processes.pop("gateway7"):
            pass
