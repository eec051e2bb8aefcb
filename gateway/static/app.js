// The page at /: a list of recordings and files, and the transcript of the one that is selected.

import { getHealth } from "./api.js";
import { ask } from "./ask.js";
import { SUFFIXES } from "./audio-formats.js";
import { download } from "./exports.js";
import { clock } from "./formats.js";
import { HistoryList } from "./history.js";
import { onLanguage, problemText, setUpLanguage, t } from "./i18n.js";
import { LevelMeter } from "./meter.js";
import { Options } from "./options.js";
import { Player } from "./player.js";
import { QueueList, stateOf } from "./queue.js";
import { EDITED_MAX, dropEdits, exclusively, runningBefore } from "./remembered.js";
import { TranscriptView } from "./transcript.js";
import { Transcription } from "./transcription.js";

export const KEPT_AUDIO_BYTES_MAX = 256 * 2 ** 20; // of ended recordings; the oldest cannot be played then
const $ = (id) => document.getElementById(id);

const items = []; // in the list
let selected = null; // of them, or from the history

const player = new Player($("player"), (ms) => transcript.showPosition(ms));
const transcript = new TranscriptView({
  lines: $("lines"),
  partial: $("partial"),
  scroller: $("paper"),
  onSeek: (ms) => player.seek(ms),
});
const meter = new LevelMeter($("level"));
const options = new Options();
const queue = new QueueList($("queue"), { onSelect: select, onRemove: remove });
const history = new HistoryList(view);

let whenReady; // the models are known, or the server does not tell them

// ------------------------------------------------------------------------------------- display

const recording = () => items.find((item) => item.recording) ?? null;

function show() {
  const busy = recording() !== null;
  document.body.dataset.state = selected?.state ?? "idle";
  document.body.classList.toggle("busy", busy);
  $("record-label").textContent = t(busy ? "speak.stop" : "speak.start");
  $("record").title = $("record-label").textContent;
  const state = selected ? stateOf(selected) : t("state.idle");
  if ($("state").textContent !== state) $("state").textContent = state;
  $("hint").hidden = selected !== null;
  queue.show(items, selected);
  transcript.update();
  showFacts();
  showProblems();
  showActions();
}

function showFacts() {
  $("time").textContent = clock(selected?.durationMs ?? 0);
  const speed = selected?.fromFile;
  $("latency-fact").hidden = !selected || !(speed ? selected.tookMs : selected.latencyMs);
  $("latency-name").dataset.text = speed ? "speak.speed" : "speak.latency";
  $("latency-fact").dataset.hint = speed ? "speak.speed_hint" : "speak.latency_hint";
  $("latency-name").textContent = t($("latency-name").dataset.text);
  $("latency-fact").title = t($("latency-fact").dataset.hint);
  if (!$("latency-fact").hidden) $("latency").textContent = speed ? speedText() : latencyText();
}

const latencyText = () =>
  t("speak.latency_value", {
    last: Math.round(selected.latencyMs),
    median: Math.round(selected.latency.median),
  });

const speedText = () =>
  t("speak.speed_value", { speed: (selected.durationMs / selected.tookMs).toFixed(1) });

function showProblems() {
  const { problem = null, warnings = [] } = selected ?? {};
  if (problem) {
    const { code, message, retryAfterS: seconds } = problem;
    const again = seconds === undefined ? "" : ` ${t("retry_in", { seconds })}`;
    showProblem(problemText(code, message) + again);
  } else if (selected) {
    showProblem("");
  }
  const lines = warnings.map(({ code, message }) => t(`warning.${code}`, {}, message));
  if (selected?.edited) lines.push(t(selected.editsKept ? "edit.kept" : "edit.local", { max: EDITED_MAX }));
  $("warnings").hidden = !lines.length;
  if ($("warnings").dataset.shown === lines.join("\n")) return;
  $("warnings").dataset.shown = lines.join("\n");
  $("warnings").replaceChildren(
    ...lines.map((line) => {
      const entry = document.createElement("p");
      entry.textContent = line;
      return entry;
    }),
  );
}

function showProblem(text) {
  if ($("problem").textContent !== text) $("problem").textContent = text;
  $("problem").hidden = !text;
}

function showActions() {
  const silent = !selected?.spoken.length;
  for (const button of $("speak").querySelectorAll(".actions button")) button.disabled = silent;
  $("edit").setAttribute("aria-pressed", String(transcript.editing));
  const audio = selected?.ended ? selected.audio : null;
  player.show(silent ? null : audio);
}

// -------------------------------------------------------------------------------------- the list

function select(item) {
  player.pause();
  selected = item;
  transcript.show(item);
  show();
}

function add(item) {
  items.push(item);
  item.addEventListener("change", show);
  item.addEventListener("opened", () => options.findDevices());
  item.addEventListener("end", () => ended(item));
  return item;
}

function ended(item) {
  meter.clear();
  if (item === selected) transcript.show(item); // it can be played now
  let bytes = 0;
  for (const one of [...items].reverse()) {
    const { fromFile, audio } = one;
    bytes += fromFile ? 0 : (audio?.blob.size ?? 0);
    if (!fromFile && audio && bytes > KEPT_AUDIO_BYTES_MAX) one.audio = null;
  }
  history.load();
  runNextFile();
}

// While it runs, leave it; later, take it from the list, where its edits are.
async function remove(item) {
  if (!item.ended) {
    item.leave();
    return;
  }
  if (item.edited && !(await ask("item.edited_heading", t("item.edited_text"), "item.drop"))) return;
  dropEdits(item.sessionId);
  items.splice(items.indexOf(item), 1);
  if (selected === item) select(items.at(-1) ?? null);
  else show();
}

async function view(sessionId) {
  let item = items.find((one) => one.sessionId === sessionId);
  if (!item) {
    try {
      item = await Transcription.stored(sessionId);
    } catch ({ code }) {
      showProblem(problemText(code));
      return;
    }
    // It enters the list once it has something to lose.
    const enter = () => {
      add(item);
      show(); // the listener that `add` registers does not get this event
    };
    item.addEventListener("change", enter, { once: true });
  }
  select(item);
  $("paper").focus();
  $("speak").scrollIntoView({ block: "start" });
}

// --------------------------------------------------------------------------------------- sessions

async function speak() {
  await whenReady;
  if (recording()) return;
  const item = add(new Transcription({ options: options.start, onLevels: (l) => meter.heard(l) }));
  exclusively(item.sessionId, () => item.runMicrophone(options.deviceId));
  select(item);
}

// All files are transcribed, one after the other.
async function addFiles(files) {
  await whenReady;
  const added = [...files].map((file) => add(new Transcription({ file, options: options.start })));
  if (added.length && !recording() && !selected?.active) select(added[0]);
  show();
  runNextFile();
}

function runNextFile() {
  if (items.some((item) => item.fromFile && item.active)) return;
  const next = items.find((item) => item.fromFile && item.state === "waiting");
  if (!next) return;
  // The user watches the file before: show this one now.
  if (selected?.fromFile && selected.ended && !selected.edited) select(next);
  exclusively(next.sessionId, () => next.runFile());
}

// Sessions that ran when this page was reloaded.
function resumeAll() {
  for (const kept of runningBefore()) {
    exclusively(kept.sessionId, () => {
      const item = add(Transcription.before(kept, (levels) => meter.heard(levels)));
      select(item);
      return item.resume(options.deviceId);
    });
  }
}

// ---------------------------------------------------------------------------------------- controls

function setUpControls() {
  $("record").addEventListener("click", ({ detail: clicks }) => {
    if (clicks > 1) return; // the second of a double click is not meant to stop
    if (recording()) recording().stop();
    else speak();
  });
  $("choose").addEventListener("click", () => $("file").click());
  $("file").accept = ["audio/*", "video/*", ".m4a", ...SUFFIXES].join();
  $("file").addEventListener("change", () => {
    const files = [...$("file").files];
    $("file").value = ""; // the same file may be chosen again
    addFiles(files);
  });
  $("edit").addEventListener("click", () => {
    transcript.edit(!transcript.editing);
    show();
    if (transcript.editing) $("lines").querySelector("textarea")?.focus();
  });
  $("copy").addEventListener("click", () => copy($("copy")));
  for (const button of $("speak").querySelectorAll("[data-download]")) {
    button.addEventListener("click", () =>
      download(selected, button.dataset.download).catch(({ code }) =>
        showProblem(problemText(code)),
      ),
    );
  }
  setUpDropping();
  window.addEventListener("online", () => items.forEach((item) => item.retryNow()));
  window.addEventListener("beforeunload", (event) => {
    const lost = (item) => item.edited && !item.editsKept;
    const waits = (item) => lost(item) || (item.fromFile && !item.ended) || item.recording;
    if (items.some(waits)) event.preventDefault();
  });
}

async function copy(button) {
  const text = selected.spoken.map((segment) => `${segment.text}\n`).join("");
  const copied = await writeClipboard(text).then(
    () => true,
    () => false,
  );
  if (copied) $("said").textContent = t("speak.copied");
  else showProblem(t("speak.copy_failed"));
  button.classList.toggle("copied", copied);
  setTimeout(() => {
    $("said").textContent = "";
    button.classList.remove("copied");
  }, 2_000);
}

// Browsers hide the clipboard from pages not served over HTTPS or from localhost.
const writeClipboard = async (text) => navigator.clipboard.writeText(text);

function setUpDropping() {
  const holdsFile = (event) => event.dataTransfer?.types.includes("Files");
  window.addEventListener("dragover", (event) => {
    if (!holdsFile(event)) return;
    event.preventDefault();
    $("speak").classList.add("dropping");
  });
  window.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) $("speak").classList.remove("dropping");
  });
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    $("speak").classList.remove("dropping");
    addFiles(event.dataTransfer?.files ?? []);
  });
}

async function showHealth() {
  const health = await getHealth().catch(() => null);
  options.setModels(health?.served ?? []);
  $("demo").hidden = !health?.models?.some((model) => model.includes("demo"));
  if (health?.status === "unavailable" && !selected) showProblem(health.reason);
}

onLanguage(() => {
  document.title = t("title");
  show();
});
setUpControls();
setUpLanguage();
history.load();
whenReady = showHealth();
resumeAll();
