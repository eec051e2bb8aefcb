// The page at /dashboard. It requests the system's figures every two seconds while it is visible.

import { getSystem } from "./api.js";
import { bars, lines, sparkline } from "./charts.js";
import { currentLanguage, onLanguage, problemText, setUpLanguage, t } from "./i18n.js";

const EVERY_MS = 2_000;
const LANGUAGES_LISTED_MAX = 8; // more are a number: their list would be wider than the screen
const $ = (id) => document.getElementById(id);

const number = (value) => value.toLocaleString(currentLanguage());
const ms = (value) => {
  if (value === null) return "–";
  return value < 1000 ? `${Math.round(value)}\u00a0ms` : `${(value / 1000).toFixed(1)}\u00a0s`;
};
const span = (seconds) => {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
};

let system = null;

function draw() {
  document.title = t("title.dashboard");
  if (!system) return;
  const { queue, recent, totals, gateways } = system;
  const known = system.gateways_registered;
  $("gateway").textContent = t("board.gateways_shown", {
    shown: number(gateways.length),
    known: known === null ? t("board.unknown") : number(known),
  });
  $("incomplete").hidden = system.complete;
  $("incomplete").textContent = t("board.incomplete");
  $("sessions").textContent = number(totals.sessions_active);
  $("sessions-note").textContent = t("board.sessions_note", {
    connections: number(totals.connections),
    started: number(totals.sessions_started),
  });
  $("queue").textContent = queue ? number(queue.queued) : "–";
  $("queue-note").textContent = queue
    ? t("board.queue_note", { processing: number(queue.processing), wait: ms(queue.est_wait_ms) })
    : t("board.no_broker");
  $("latency").textContent = ms(recent.latency_ms.p95);
  $("latency-note").textContent = t("board.latency_note", {
    p50: ms(recent.latency_ms.p50),
    p99: ms(recent.latency_ms.p99),
  });
  $("backlog").textContent = number(totals.records_waiting);
  $("backlog-note").textContent = t("board.backlog_note");
  drawCharts(recent);
  drawModels(system.served);
  drawWorkers(system);
  drawGateways(gateways);
  drawServices(system);
  drawErrors(system.errors);
}

function drawCharts({ series, results, failures }) {
  sparkline($("sessions-chart"), series.sessions);
  sparkline($("queue-chart"), series.queued);
  lines(
    $("latency-chart"),
    [
      { values: series.latency_p95_ms, kind: "second" },
      { values: series.latency_p50_ms, kind: "first" },
    ],
    ms,
  );
  bars($("results-chart"), series.results, number);
  $("results-about").textContent = t("board.throughput_about", {
    results: number(results),
    failures: number(failures),
  });
}

// A row of a table: its head, and what follows. Unknown values are dashes.
function row(head, ...values) {
  const element = document.createElement("tr");
  const name = document.createElement("th");
  name.scope = "row";
  name.textContent = head.replace(/^((?:gateway|worker)-.{8}).*$/, "$1");
  name.title = head;
  const cells = values.map((value) => {
    const cell = document.createElement("td");
    cell.className = "number";
    cell.textContent = value ?? "–";
    return cell;
  });
  element.append(name, ...cells);
  return element;
}

const orNone = (value, text = number) => (value == null ? null : text(value));
const mebibytes = (value) => t("board.mib", { mib: number(Math.round(value / 2 ** 20)) });
const share = (busy, all) => t("board.busy_of", { busy: number(busy), all: number(all) });
const placeOf = (usage) => usage && `${usage.host} · ${usage.pid}`;
const usageOf = (usage) => [
  usage && `${number(Math.round(100 * usage.cpu_cores))} %`,
  orNone(usage?.memory_bytes, mebibytes),
];

function fill(id, rows, emptyKey) {
  const body = $(id);
  const columns = [...body.closest("table").querySelectorAll("thead th")];
  if (!rows.length) {
    const none = document.createElement("td");
    const colSpan = columns.length;
    Object.assign(none, { className: "none", colSpan, textContent: t(emptyKey) });
    rows.push(document.createElement("tr"));
    rows[0].append(none);
  }
  // A narrow screen shows each value below the name of its column.
  for (const cell of rows.flatMap(({ children }) => [...children])) {
    cell.dataset.column = columns[cell.cellIndex].textContent;
  }
  body.replaceChildren(...rows);
}

function drawModels(served) {
  const rows = served.map((model) =>
    row(
      model.name,
      share(model.workers_busy, model.workers),
      model.workers ? ms(model.est_wait_ms) : null,
      languagesOf(model.abilities),
    ),
  );
  fill("models", rows, "board.no_models");
}

function languagesOf({ languages }) {
  if (languages.length > LANGUAGES_LISTED_MAX) return number(languages.length);
  return languages.join(", ") || null;
}

function drawWorkers({ workers, throughput_rtfx: speed }) {
  $("workers-note").textContent =
    speed === null ? t("board.no_broker") : t("board.workers_note", { speed: number(speed) });
  const rows = (workers ?? []).map((worker) =>
    row(
      worker.worker_id,
      worker.model,
      deviceOf(worker),
      share(worker.jobs, worker.credits),
      resultsOf(worker),
      orNone(worker.rtfx, (value) => `${number(value)}×`),
      orNone(
        worker.batch_jobs_mean,
        (mean) => `${number(mean)} (${number(worker.batch_jobs_max)})`,
      ),
      ...usageOf(worker.usage),
      placeOf(worker.usage),
    ),
  );
  fill("workers", rows, workers ? "board.no_workers" : "board.workers_unknown");
}

function deviceOf({ device, usage }) {
  if (!usage?.gpu) return device;
  const [used, all] = [usage.gpu_memory_bytes, usage.gpu_memory_total_bytes].map(mebibytes);
  return `${usage.gpu}, ${used} / ${all}`;
}

function resultsOf({ results, failures }) {
  const values = { results: number(results), failures: number(failures) };
  return failures ? t("board.results_failed", values) : values.results;
}

function drawGateways(gateways) {
  const rows = gateways.map(({ usage, ...gateway }) =>
    row(
      gateway.gateway_id,
      number(gateway.sessions_active),
      number(gateway.connections),
      share(gateway.records_waiting, gateway.records_waiting_max),
      ...usageOf(usage),
      usage.version,
      span(usage.uptime_s),
      placeOf(usage),
    ),
  );
  fill("gateways", rows, "board.unknown");
}

function drawServices({ processes, stores }) {
  const rows = ["broker", "persistence"].flatMap((kind) => {
    const found = processes.filter((one) => one.kind === kind);
    if (!found.length) return [row(t(`board.${kind}`), t("board.unknown"), ...Array(5))];
    return found.map(({ usage }) =>
      row(
        t(`board.${kind}`),
        t("board.runs"),
        ...usageOf(usage),
        usage.version,
        span(usage.uptime_s),
        placeOf(usage),
      ),
    );
  });
  for (const [name, { ready }] of [
    ["PostgreSQL", stores.postgresql],
    ["Redis", stores.redis],
  ]) {
    rows.push(row(name, t(ready ? "board.answers" : "board.no_answer"), ...Array(5)));
  }
  fill("services", rows, "board.unknown");
}

function drawErrors(errors) {
  const entries = Object.entries(errors).sort((a, b) => b[1] - a[1]);
  $("errors-none").hidden = entries.length > 0;
  $("errors").replaceChildren(
    ...entries.map(([code, count]) => {
      const entry = document.createElement("div");
      const name = document.createElement("dt");
      name.textContent = problemText(code);
      const value = document.createElement("dd");
      value.textContent = number(count);
      entry.append(name, value);
      return entry;
    }),
  );
}

async function refresh() {
  if (document.visibilityState === "visible") {
    try {
      system = await getSystem();
      $("stale").hidden = true;
      draw();
    } catch ({ code }) {
      const unauthorized = code === "unauthorized";
      $("stale").textContent = unauthorized ? problemText(code) : t("board.stale");
      $("stale").hidden = false;
      if (unauthorized) return; // and the page asks for a token
    }
  }
  setTimeout(refresh, EVERY_MS);
}

onLanguage(draw);
setUpLanguage();
refresh();
