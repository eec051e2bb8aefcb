"""``python -m runtime.healthcheck PROCESS``: exit with 0 if the process of this container is alive.

It reads the metrics of the process, which METRICS_PORT must enable. It is for orchestrators that
only run commands.
"""

from __future__ import annotations

import http
import http.client
import sys

from runtime import exit_codes
from runtime.metrics import PORT_OFFSETS
from runtime.settings import ProcessSettings, fail, load

TIMEOUT_S = 3.0


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in PORT_OFFSETS:
        fail(f"usage: python -m runtime.healthcheck {'|'.join(PORT_OFFSETS)}")
    first_port, host = load(ProcessSettings).metrics_address()
    if not first_port:
        fail("METRICS_PORT is not set, and the process is asked for its metrics")
    # Linux takes 0.0.0.0 and :: for this machine.
    connection = http.client.HTTPConnection(
        host, first_port + PORT_OFFSETS[arguments[0]], timeout=TIMEOUT_S
    )
    try:
        # Not urllib, which would ask the proxy that the environment names.
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        if answer.status == http.HTTPStatus.OK:
            return exit_codes.OK
        why: object = answer.status
    except (OSError, http.client.HTTPException) as error:
        why = error
    finally:
        connection.close()
    sys.stderr.write(f"/metrics at {host}, port {connection.port}: {why}\n")
    return exit_codes.FAILURE


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
