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
        text = answer.read().decode()
        is_served = answer.status == http.HTTPStatus.OK
        missing = [name for name in arguments[1:] if not _exports(text, name)]
        if is_served and not missing:
            return exit_codes.OK
        why: object = f"no {missing[0]} yet" if is_served else answer.status
    except (OSError, http.client.HTTPException) as error:
        why = error
    finally:
        connection.close()
    sys.stderr.write(f"/metrics at {host}, port {port}: {why}\n")
    return exit_codes.FAILURE


def _exports(text: str, metric: str) -> bool:
    """Whether ``text``, in the format of Prometheus, has a series of ``metric``."""
    return re.search(rf"^{re.escape(metric)}[{{ ]", text, re.MULTILINE) is not None


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
