// The page at /dashboard. It requests the statistics every two seconds while it is visible.

import { getStats } from "./api.js";
import { bars, lines, sparkline } from "./charts.js";
import { currentLanguage, onLanguage, problemText, setUpLanguage, t } from "./i18n.js";

const EVERY_MS = 2_000;
const $ = (id) => document.getElementById(id);

const number = (value) => value.toLocaleString(currentLanguage());
const ms = (value) => {
  if (value === null) return "–";
  return value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`;
};
const span = (seconds) => {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
};

let stats = null;

function draw() {
  document.title = t("title.dashboard");
  if (!stats) return;
  const { queue, recent } = stats;
  $("gateway").textContent = t("board.gateway", {
    id: stats.gateway_id,
    uptime: span(stats.uptime_s),
  });
  $("sessions").textContent = number(stats.sessions_active);
  $("sessions-note").textContent = t("board.sessions_note", {
    connections: number(stats.connections),
    total: number(stats.connections_total),
    started: number(stats.sessions_started),
  });
  $("queue").textContent = queue.broker_ready ? number(queue.queued) : "–";
  $("queue-note").textContent = queue.broker_ready
    ? t("board.queue_note", { processing: number(queue.processing), wait: ms(queue.est_wait_ms) })
    : t("board.no_broker");
  $("latency").textContent = ms(recent.latency_ms.p95);
  $("latency-note").textContent = t("board.latency_note", {
    p50: ms(recent.latency_ms.p50),
    p99: ms(recent.latency_ms.p99),
  });
  $("backlog").textContent = number(stats.records_waiting);
  $("backlog-note").textContent = t("board.backlog_note", {
    max: number(stats.records_waiting_max),
  });
  drawCharts(recent);
  drawWorkers(queue, recent.workers);
  drawRefusals(recent.refused);
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

function cell(text, name = "td") {
  const element = document.createElement(name);
  element.textContent = text;
  if (name === "th") element.scope = "row";
  else element.className = "number";
  return element;
}

/** A served model, with its workers if there are several models. */
function modelText({ name, workers }, _place, all) {
  return all.length > 1 ? `${name} (${number(workers)})` : name;
}

function drawWorkers(queue, workers) {
  $("workers-note").textContent = t("board.workers_note", {
    busy: number(queue.workers_busy),
    workers: number(queue.workers),
    speed: number(stats.throughput_rtfx),
    models: stats.served.map(modelText).join(", ") || "–",
  });
  const rows = workers.map((worker) => {
    const row = document.createElement("tr");
    const name = cell(worker.worker_id.replace(/^worker-(.{8}).*$/, "$1"), "th");
    name.title = worker.worker_id;
    row.append(
      name,
      cell(number(worker.results)),
      cell(`${number(worker.rtfx)}×`),
      cell(`${number(worker.batch_jobs_mean)} (${number(worker.batch_jobs_max)})`),
      cell(worker.seen_s ? t("board.ago", { seconds: number(worker.seen_s) }) : t("board.now")),
    );
    return row;
  });
  if (!rows.length) {
    const row = document.createElement("tr");
    const none = cell(t("board.no_workers"));
    none.className = "none";
    none.colSpan = 5;
    row.append(none);
    rows.push(row);
  }
  $("workers").replaceChildren(...rows);
}

function drawRefusals(refused) {
  const entries = Object.entries(refused).sort((a, b) => b[1] - a[1]);
  $("refused-none").hidden = entries.length > 0;
  $("refused").replaceChildren(
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
      stats = await getStats();
      $("stale").hidden = true;
      draw();
    } catch ({ code }) {
      const unauthorized = code === "unauthorized";
      $("stale").textContent = unauthorized ? problemText(code) : t("board.stale");
      $("stale").hidden = false;
      if (unauthorized) return; // and the page says what to do
    }
  }
  setTimeout(refresh, EVERY_MS);
}

onLanguage(draw);
setUpLanguage();
refresh();
