// One transcription: a recording, a file, or a stored session. Its progress, texts and audio, without
// what is shown. It dispatches "change" whenever one of them is another, "opened" when the microphone
// is, and "end".

import { getSession, socketProtocols, socketUrl, whyRefused } from "./api.js";
import { AsrSession, newSessionId } from "./asr-client.js";
import { sourceOf } from "./audio-files.js";
import { LatencyMeter } from "./latency.js";
import { Microphone } from "./microphone.js";
import { editsOf, forgetRunning, keepEdit, keepName, keepRunning, nameOf } from "./remembered.js";
import { LiveSource } from "./sources.js";
import { wavOf } from "./wav.js";

export const CHUNK_MS = 100; // of the microphone
const ENDED = new Set(["done", "failed", "left"]);

export class Transcription extends EventTarget {
  name; // of the file; "" of a recording
  startedAt;
  state = "waiting"; // until its turn; then "permission", the states of AsrSession, "done", "left"
  problem = null; // {code, message, retryAfterS?}
  warnings = []; // {code, message}
  partial = "";
  durationMs = 0; // as far as it is recognised, or recorded
  totalMs = null; // of a file, if the browser can tell
  uploaded = 0; // share of the file
  tookMs = null;
  latency = new LatencyMeter();
  latencyMs = null; // of the last text
  stored = false;
  runsElsewhere = false; // a session of another client, not at its end when it was loaded
  audio = null; // {blob, offsetMs}: audio that the browser can play
  edited = false;
  editsKept = true; // by the browser
  sessionId = newSessionId();
  stopped = false; // the microphone; texts may follow
  fromFile;

  #segments = new Map();
  #edits = {}; // of the user before the page was reloaded, by segment
  #file;
  #options;
  #session = null;
  #source = null;
  #microphone = null;
  #token = null;
  #chunks = null; // of a file that was sent before a reload
  #note = null; // a warning of our own
  #heardFromMs = 0; // start of the recording of this page
  #onLevels;

  // options: as in `start`. onLevels: called with the loudness of the microphone.
  constructor({ file = null, name = file?.name ?? "", options = {}, onLevels = () => {} }) {
    super();
    this.#file = file;
    this.#options = options;
    this.#onLevels = onLevels;
    this.name = name;
    this.fromFile = file !== null;
    this.startedAt = new Date();
    if (file) this.audio = { blob: file, offsetMs: 0 };
  }

  // A stored session. Throws ApiError.
  static async stored(sessionId) {
    const found = new Transcription({ name: nameOf(sessionId) });
    found.sessionId = sessionId;
    await found.#load();
    return found;
  }

  // A session of this tab before the page was reloaded, as `keepRunning` remembered it.
  static before(kept, onLevels) {
    const { sessionId, token, name, fromFile, startedAt, options, stopped, chunks } = kept;
    const found = new Transcription({ name, options, onLevels });
    Object.assign(found, { sessionId, fromFile, stopped, startedAt: new Date(startedAt) });
    found.#edits = editsOf(sessionId);
    found.#token = token;
    found.#chunks = chunks;
    return found;
  }

  get active() {
    return this.state !== "waiting" && !ENDED.has(this.state);
  }

  // Also before it has the lock of its session and the microphone: only one records at a time.
  get recording() {
    return !this.ended && !this.fromFile && !this.stopped;
  }

  get ended() {
    return ENDED.has(this.state);
  }

  // In order of time.
  get segments() {
    return [...this.#segments.values()].sort((a, b) => a.segment_index - b.segment_index);
  }

  get spoken() {
    return this.segments.filter((segment) => segment.text);
  }

  edit(segmentIndex, text) {
    this.#segments.get(segmentIndex).text = text;
    this.edited = true;
    this.editsKept = keepEdit(this.sessionId, segmentIndex, text);
    this.#changed();
  }

  // ------------------------------------------------------------------------------------- its run

  async runFile() {
    if (this.ended) return; // left before its turn
    this.#go("connecting");
    this.#measure();
    try {
      const { source, options } = await sourceOf(this.#file);
      if (this.ended) return; // left while the browser read the file
      await this.#run(source, { ...this.#options, ...options });
    } catch (error) {
      if (!this.ended) this.#fail(error);
    }
  }

  async runMicrophone(deviceId) {
    if (this.ended) return; // stopped before its turn
    const source = new LiveSource();
    try {
      if (!(await this.#listen(source, deviceId))) return;
    } catch (error) {
      if (!this.ended) this.#fail(error);
      return;
    }
    await this.#run(source, { ...this.#options, mode: "stream" });
  }

  // Continue after a reload: a recording as a whole, of a file only the part already sent.
  async resume(deviceId) {
    const source = new LiveSource();
    if (!this.fromFile && !this.stopped) {
      await this.#listen(source, deviceId).catch(() => {
        this.#note = { code: "reloaded_silent" }; // the texts so far follow all the same
        this.stopped = true;
      });
      if (this.ended) return;
    }
    if (!this.#microphone) source.end();
    await this.#run(source, this.#options);
  }

  // The audio lost by the reload, once the server has reported how much it has.
  #onResumed(nextChunk) {
    this.#heardFromMs = nextChunk * CHUNK_MS;
    this.#source.startAt(nextChunk);
    const cut = this.fromFile ? nextChunk < this.#chunks : !this.stopped;
    if (cut) this.#note = { code: this.fromFile ? "reloaded_file" : "reloaded" };
  }

  async #listen(source, deviceId) {
    this.#go("permission");
    this.#microphone = await Microphone.open({
      deviceId,
      onChunk: ({ pcm, levels }) => this.#hear(source, pcm, levels),
      onLost: () => {
        this.problem = { code: "microphone_lost" };
        this.stop();
      },
    });
    this.dispatchEvent(new Event("opened"));
    if (this.stopped) {
      await this.#microphone.close(); // stopped while the browser was still asking
      return false;
    }
    // A phone that goes to sleep stops recording. The request may be refused.
    this.wakeLock = await navigator.wakeLock?.request("screen").catch(() => null);
    return true;
  }

  #hear(source, pcm, levels) {
    source.push(pcm);
    this.latency.heard(levels, performance.now());
    this.durationMs = source.count * CHUNK_MS;
    if (!this.stopped) this.#onLevels(levels);
    this.#changed();
  }

  // No more is recorded; the texts of the recording follow.
  async stop() {
    if (this.stopped) return;
    this.stopped = true;
    if (!this.#session) {
      this.#end("left"); // the browser is still asking for the microphone
      return;
    }
    this.#remember();
    this.#changed();
    await this.#microphone?.close();
    this.#source.end();
  }

  leave() {
    if (this.#session) this.#session.abandon();
    else this.#end("left");
  }

  retryNow() {
    this.#session?.retryNow();
  }

  async #run(source, options) {
    this.#options = options;
    this.#source = source;
    const startedMs = performance.now();
    const session = new AsrSession({
      url: socketUrl(),
      source,
      sessionId: this.sessionId,
      token: this.#token,
      options,
      whyRefused,
      protocols: socketProtocols,
    });
    this.#session = session;
    this.#follow(session, this.#token !== null);
    try {
      const final = await session.run();
      this.warnings = [...this.warnings, ...(final.warnings ?? [])];
      for (const segment of this.#segments.values()) {
        segment.speaker = final.speakers?.[segment.segment_index] ?? segment.speaker;
      }
      Object.assign(this, { stored: final.stored, durationMs: final.duration * 1000, uploaded: 1 });
      this.tookMs = performance.now() - startedMs;
      await this.#addWordTimes();
      this.#end(this.problem && !this.#segments.size ? "failed" : "done");
    } catch (error) {
      await this.#giveUp(error);
    }
  }

  #follow(session, reloaded) {
    const on = (name, take) => session.addEventListener(name, ({ detail }) => take(detail));
    on("state", (state) => {
      if (state === "live") this.problem = null;
      if (!ENDED.has(state)) this.#go(state);
    });
    on("started", ({ token, nextChunk, warnings }) => {
      this.#token = token;
      this.sessionId = session.sessionId; // a new one if the answer to the first start was lost
      if (this.#file) keepName(this.sessionId, this.name);
      if (reloaded) this.#onResumed(nextChunk);
      reloaded = false;
      this.warnings = this.#note ? [this.#note, ...warnings] : warnings;
      this.#remember();
      this.#changed();
    });
    on("received", (count) => {
      if (!this.#file) return;
      this.uploaded = Math.max(this.uploaded, count / this.#source.count);
      this.#changed();
    });
    on("refused", ({ code, message, retryAfterS }) => {
      if (retryAfterS !== null) this.problem = { code, message, retryAfterS };
      this.#changed(); // without a time to retry, it fails, and says why
    });
    on("restarted", () => {
      this.#segments.clear();
      this.#changed();
    });
    on("partial", ({ text }) => {
      this.partial = text;
      this.#changed();
    });
    on("segment", (segment) => this.#add(segment));
    on("problem", ({ code, message }) => {
      this.problem = { code, message };
      this.#changed();
    });
  }

  // With the text of the user, if it was edited before the page was reloaded.
  #put(segment) {
    const edit = this.#edits[segment.segment_index];
    this.#segments.set(segment.segment_index, { ...segment, text: edit ?? segment.text });
    this.edited ||= edit !== undefined;
  }

  #add(segment) {
    this.#put(segment);
    this.partial = "";
    this.durationMs = Math.max(this.durationMs, segment.end_ms ?? 0);
    if (!this.fromFile && segment.text) {
      const { start_ms: start, end_ms: end } = segment;
      const from = this.#heardFromMs;
      this.latencyMs =
        this.latency.measure(start - from, end - from, performance.now()) ?? this.latencyMs;
    }
    this.#changed();
  }

  // The protocol has no times of words; the stored session has.
  async #addWordTimes() {
    const found = await getSession(this.sessionId).catch(() => null);
    for (const { segment_index: index, tokens } of found?.segments ?? []) {
      const segment = this.#segments.get(index);
      if (segment && !this.edited) segment.tokens = tokens;
    }
  }

  async #giveUp(error) {
    if (error.code === "abandoned") {
      this.#end("left");
    } else if (error.code === "not_resumable" && !this.#segments.size && (await this.#loaded())) {
      this.#end(this.state); // it ended while the page was away
    } else {
      this.#fail(error);
    }
  }

  #loaded() {
    return this.#load().then(
      () => true,
      () => false,
    );
  }

  async #load() {
    const found = await getSession(this.sessionId);
    this.#edits = editsOf(this.sessionId);
    for (const { error, ...segment } of found.segments) {
      this.#put({ ...segment, ...error });
    }
    this.startedAt = new Date(found.created_at);
    this.runsElsewhere = found.live || found.status === "active";
    this.stored = !this.runsElsewhere;
    this.durationMs = found.duration * 1000;
    this.problem = found.error ?? null;
    this.state = this.problem && !this.#segments.size ? "failed" : "done";
  }

  #fail(error) {
    this.problem = { code: error.code, message: error.message };
    this.#end("failed");
  }

  #end(state) {
    forgetRunning(this.sessionId);
    this.partial = "";
    this.stopped = true;
    this.#microphone?.close();
    this.wakeLock?.release();
    const { chunks = [], first = 0 } = (!this.fromFile && this.#source?.kept) || {};
    if (chunks.length) this.audio = { blob: wavOf(chunks), offsetMs: first * CHUNK_MS };
    this.#source = null;
    this.#go(state);
    this.dispatchEvent(new Event("end"));
  }

  #remember() {
    keepRunning({
      sessionId: this.sessionId,
      token: this.#token,
      name: this.name,
      fromFile: this.fromFile,
      startedAt: this.startedAt.getTime(),
      options: this.#options,
      stopped: this.stopped,
      chunks: this.#chunks ?? this.#source.count,
    });
  }

  // The length of a file that the browser can play.
  #measure() {
    const media = new Audio();
    media.preload = "metadata";
    media.onloadedmetadata = () => {
      if (Number.isFinite(media.duration)) this.totalMs = media.duration * 1000;
      URL.revokeObjectURL(media.src);
      this.#changed();
    };
    media.onerror = () => URL.revokeObjectURL(media.src);
    media.src = URL.createObjectURL(this.#file);
  }

  #go(state) {
    this.state = state;
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
