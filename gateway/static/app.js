// The page at /: one session at a time, from the microphone or a file.

import { getHealth, socketProtocols, socketUrl, whyRefused } from "./api.js";
import { AsrSession } from "./asr-client.js";
import { sourceOf } from "./audio-files.js";
import { SUFFIXES } from "./audio-formats.js";
import { clock } from "./formats.js";
import { HistoryList } from "./history.js";
import { onLanguage, problemText, setUpLanguage, t } from "./i18n.js";
import { LatencyMeter } from "./latency.js";
import { LevelMeter } from "./meter.js";
import { Microphone } from "./microphone.js";
import { LiveSource } from "./sources.js";
import { TranscriptView } from "./transcript.js";

const BYTES_PER_MS = 32;
const $ = (id) => document.getElementById(id);

const transcript = new TranscriptView({
  lines: $("lines"),
  partial: $("partial"),
  scroller: $("paper"),
});
const meter = new LevelMeter($("level"));
const history = new HistoryList();

let run = null; // what is going on: {session, source, microphone, file, latency, …}
let state = "idle";

// ------------------------------------------------------------------------------- what is shown

function show(next) {
  state = next;
  document.body.dataset.state = state;
  const busy = state !== "idle" && state !== "done" && state !== "failed";
  const giveUp = busy && run?.source && (run.stopped || run.file);
  document.body.classList.toggle("busy", busy);
  $("record-label").textContent = t(
    giveUp ? "speak.give_up" : busy ? "speak.stop" : "speak.start",
  );
  $("record").title = $("record-label").textContent;
  $("choose").disabled = busy;
  $("state").textContent = stateText();
  $("hint").hidden = busy || !transcript.empty;
  for (const button of $("speak").querySelectorAll(".foot button")) {
    button.disabled = transcript.empty;
  }
}

function stateText() {
  if (state === "live" && run?.file) return t("state.live_file", { name: run.file.name });
  if (state === "reconnecting" && run?.file) return t("state.reconnecting_file");
  if (state === "done" && transcript.empty) return t("state.done_silent");
  if (state === "done" && !run.stored) return t("state.done_unstored");
  return t(`state.${state}`);
}

function showProblem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

function showTime() {
  $("time").textContent = clock(run?.durationMs ?? 0);
  const speed = run?.file;
  $("latency-name").dataset.text = speed ? "speak.speed" : "speak.latency";
  $("latency-fact").dataset.hint = speed ? "speak.speed_hint" : "speak.latency_hint";
  $("latency-name").textContent = t($("latency-name").dataset.text);
  $("latency-fact").title = t($("latency-fact").dataset.hint);
  $("latency").textContent = (speed ? speedText() : latencyText()) ?? "–";
}

function latencyText() {
  if (run?.lastLatencyMs == null) return null;
  return t("speak.latency_value", {
    last: Math.round(run.lastLatencyMs),
    median: Math.round(run.latency.median),
  });
}

function speedText() {
  if (!run.tookMs) return null;
  return t("speak.speed_value", { speed: (run.durationMs / run.tookMs).toFixed(1) });
}

// ---------------------------------------------------------------------------------- one session

async function transcribe({ source, options = {}, file = null, microphone = null }) {
  const session = new AsrSession({
    url: socketUrl(),
    source,
    options: { speakers: true, ...options },
    whyRefused,
    protocols: socketProtocols,
  });
  Object.assign(run, { session, source, file, microphone, startedMs: performance.now() });
  session.addEventListener("state", ({ detail }) => {
    if (detail === "live") showProblem("");
    if (detail !== "done" && detail !== "failed") show(detail);
  });
  session.addEventListener("refused", ({ detail: { code, message, retryAfterS } }) => {
    if (retryAfterS === null) return; // it fails, and says why
    showProblem(`${problemText(code, message)} ${t("retry_in", { seconds: retryAfterS })}`);
  });
  session.addEventListener("restarted", () => transcript.clear());
  session.addEventListener("partial", ({ detail }) => transcript.showPartial(detail.text));
  session.addEventListener("segment", ({ detail }) => onSegment(detail));
  session.addEventListener("problem", ({ detail: { code, message } }) => {
    showProblem(problemText(code, message));
  });
  try {
    const final = await session.run();
    transcript.showSpeakers(final.speakers ?? []);
    Object.assign(run, { stored: final.stored, durationMs: final.duration * 1000 });
    run.tookMs = performance.now() - run.startedMs;
    end("done");
  } catch (error) {
    if (error.code === "abandoned") end("idle");
    else fail(error);
  }
}

function onSegment(segment) {
  transcript.add(segment);
  if (run.file) run.durationMs = Math.max(run.durationMs, segment.end_ms ?? 0);
  else if (segment.text) {
    const latencyMs = run.latency.measure(segment.start_ms, segment.end_ms, performance.now());
    run.lastLatencyMs = latencyMs ?? run.lastLatencyMs;
  }
  showTime();
  show(state);
}

function end(how) {
  transcript.showPartial("");
  run.microphone?.close();
  run.wakeLock?.release();
  meter.clear();
  showTime();
  show(how);
  if (how === "idle") run = null;
  history.load();
}

function fail(error) {
  showProblem(problemText(error.code, error.message));
  end("failed");
}

function begin() {
  run = { latency: new LatencyMeter(), lastLatencyMs: null, durationMs: 0, stopped: false };
  transcript.clear();
  showProblem("");
  showTime();
}

async function speak() {
  begin();
  show("permission");
  const source = new LiveSource();
  const mine = run;
  try {
    mine.microphone = await Microphone.open({
      onChunk({ pcm, levels }) {
        source.push(pcm);
        mine.latency.heard(levels, performance.now());
        mine.durationMs += pcm.byteLength / BYTES_PER_MS;
        if (run !== mine || mine.stopped) return;
        meter.heard(levels);
        showTime();
      },
      onLost() {
        showProblem(problemText("microphone_lost"));
        stop();
      },
    });
  } catch (error) {
    if (run === mine) fail(error);
    return;
  }
  if (run !== mine) {
    mine.microphone.close(); // stopped while the browser was still asking
    return;
  }
  keepAwake(mine);
  await transcribe({ source, microphone: mine.microphone, options: { mode: "stream" } });
}

async function keepAwake(mine) {
  // A phone that goes to sleep stops recording. The request may be refused.
  mine.wakeLock = await navigator.wakeLock?.request("screen").catch(() => null);
}

async function readFile(file) {
  begin();
  run.file = file;
  show("connecting");
  try {
    const { source, options } = await sourceOf(file);
    await transcribe({ source, options, file });
  } catch (error) {
    fail(error);
  }
}

async function stop() {
  const mine = run;
  if (!mine.session) {
    end("idle"); // the browser is still asking for the microphone
    return;
  }
  if (mine.stopped || mine.file) {
    mine.session.abandon();
    return;
  }
  mine.stopped = true;
  meter.clear();
  show(state);
  await mine.microphone.close();
  mine.source.end();
}

// ---------------------------------------------------------------------------------------- controls

const isBusy = () => !["idle", "done", "failed"].includes(state);

function setUpControls() {
  $("record").addEventListener("click", () => (isBusy() ? stop() : speak()));
  $("choose").addEventListener("click", () => $("file").click());
  $("file").accept = ["audio/*", "video/*", ".m4a", ...SUFFIXES].join();
  $("file").addEventListener("change", () => {
    const [file] = $("file").files;
    $("file").value = ""; // the same file may be chosen again
    if (file && !isBusy()) readFile(file);
  });
  $("copy").addEventListener("click", async () => {
    const copied = await transcript.copy().then(
      () => true,
      () => false,
    );
    if (copied) $("said").textContent = t("speak.copied");
    else showProblem(t("speak.copy_failed"));
    $("copy").classList.toggle("copied", copied);
    setTimeout(() => {
      $("said").textContent = "";
      $("copy").classList.remove("copied");
    }, 2_000);
  });
  for (const button of $("speak").querySelectorAll("[data-download]")) {
    button.addEventListener("click", () =>
      transcript.download(button.dataset.download, run?.session?.sessionId ?? "transcript"),
    );
  }
  setUpDropping();
  window.addEventListener("online", () => run?.session?.retryNow());
  window.addEventListener("beforeunload", (event) => {
    if (isBusy() && run?.session) event.preventDefault();
  });
}

function setUpDropping() {
  const card = $("speak");
  const holdsFile = (event) => event.dataTransfer?.types.includes("Files");
  window.addEventListener("dragover", (event) => {
    if (!holdsFile(event)) return;
    event.preventDefault();
    card.classList.toggle("dropping", card.contains(event.target) && !isBusy());
  });
  window.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) card.classList.remove("dropping");
  });
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    card.classList.remove("dropping");
    const [file] = event.dataTransfer?.files ?? [];
    if (file && card.contains(event.target) && !isBusy()) readFile(file);
  });
}

async function showHealth() {
  const health = await getHealth().catch(() => null);
  $("demo").hidden = !health?.models.some((model) => model.includes("demo"));
  if (health?.status === "unavailable" && state === "idle") showProblem(health.reason);
}

onLanguage(() => {
  document.title = t("title");
  showTime();
  show(state);
});
setUpControls();
setUpLanguage();
history.load();
showHealth();
