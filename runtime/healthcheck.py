"""``python -m runtime.healthcheck PROCESS [METRIC]``: exit with 0 if the process of this container
is alive and, if ``METRIC`` is given, exports that metric. A worker exports
``asr_worker_model_info`` once it has loaded its model.

It reads the metrics of the process, which METRICS_PORT must enable. It is for orchestrators that
only run commands.
"""

from __future__ import annotations

import http
import http.client
import re
import sys

from runtime import exit_codes
from runtime.metrics import PORT_OFFSETS
from runtime.settings import ProcessSettings, fail, load

TIMEOUT_S = 3.0


def main(arguments: list[str]) -> int:
    if len(arguments) not in (1, 2) or arguments[0] not in PORT_OFFSETS:
        fail(f"usage: python -m runtime.healthcheck {'|'.join(PORT_OFFSETS)} [METRIC]")
    values = load(ProcessSettings)
    if not values.metrics_port:
        fail("METRICS_PORT is not set, and the process is asked for its metrics")
    # Linux takes 0.0.0.0 and :: for this machine.
    host, port = values.metrics_host, values.metrics_port + PORT_OFFSETS[arguments[0]]
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        # Not urllib, which would ask the proxy that the environment names.
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        series = {re.split("[{ ]", line)[0] for line in answer.read().decode().splitlines()}
        why: object = answer.status
        if answer.status == http.HTTPStatus.OK:
            missing = [name for name in arguments[1:] if name not in series]
            if not missing:
                return exit_codes.OK
            why = f"no {missing[0]} yet"
    except (OSError, http.client.HTTPException) as error:
        why = error
    finally:
        connection.close()
    sys.stderr.write(f"/metrics at {host}, port {port}: {why}\n")
    return exit_codes.FAILURE


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
