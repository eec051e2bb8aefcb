"""A bus with CURVE keys: the system works as without keys, and other peers are refused."""

from __future__ import annotations

from pathlib import Path

import zmq

from tests.conftest import EmbeddedServices
from tests.integration.speech import say, spoken
from tools.lab.harness.ports import free_port
from tools.lab.harness.stack import running_stack
from wire import codec, keys, sockets
from wire.messages import Hello


async def test_the_bus_works_over_tcp_with_keys_and_refuses_unknown_keys(
    embedded_services: EmbeddedServices, tmp_path: Path
) -> None:
    keys.generate(tmp_path)
    ends = {
        name: f"tcp://127.0.0.1:{free_port()}"
        for name in ("BROKER_FRONTEND", "BROKER_BACKEND", "BROKER_EVENTS")
    }
    environment = {**ends, "BUS_KEYS_DIR": str(tmp_path)}
    services = embedded_services
    with running_stack(services.database_url, services.redis_url, **environment) as stack:
        stack.start_all()
        audio = spoken(5_100)
        _, final = await say(stack.url(), audio)
        assert final.stored

        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            worker = keys.read(tmp_path, "worker")
            stranger = sockets.connect_dealer(
                context, ends["BROKER_FRONTEND"], "gateway-stranger", worker
            )
            stranger.send_multipart(codec.encode(Hello(gateway_id="gateway-stranger")))
            refused = stack.processes["broker"].event("bus_key_refused")
            assert refused["socket"] == "front"
            assert refused["public_key"] == worker.public["worker"].decode()
            assert not stranger.poll(0)
        finally:
            context.destroy(linger=0)
