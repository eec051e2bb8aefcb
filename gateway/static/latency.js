// Latency from the last sound of an utterance, as recorded by this page, to its text on this page. It
// includes the silence that ends an utterance.

const FRAME_MS = 20;
const KEPT_FRAMES_MAX = 50 * 120; // two minutes
const SPEECH_SHARE = 0.1; // of the utterance's loudest frame, 20 dB below it, is still speech

export class LatencyMeter {
  #levels = [];
  #firstFrame = 0;
  #endedMs = 0; // when the last frame had been recorded
  #measured = [];

  // A chunk of the microphone: the loudness of its frames, and the time of its end.
  heard(levels, nowMs) {
    this.#levels.push(...levels);
    this.#endedMs = nowMs;
    const excess = this.#levels.length - KEPT_FRAMES_MAX;
    if (excess > 0) {
      this.#levels.splice(0, excess);
      this.#firstFrame += excess;
    }
  }

  // The text of start_ms to end_ms of the recording has arrived. Returns its latency in ms, or null
  // if that part of the recording is not kept.
  measure(startMs, endMs, nowMs) {
    const from = Math.floor(startMs / FRAME_MS) - this.#firstFrame;
    const to = Math.min(Math.ceil(endMs / FRAME_MS) - this.#firstFrame, this.#levels.length);
    if (from < 0 || to <= from) return null;
    const levels = this.#levels.slice(from, to);
    const threshold = Math.max(...levels) * SPEECH_SHARE;
    const lastSpeech = from + levels.findLastIndex((level) => level >= threshold) + 1;
    const spokenMs = this.#endedMs - (this.#levels.length - lastSpeech) * FRAME_MS;
    const latencyMs = Math.max(0, nowMs - spokenMs);
    this.#measured.push(latencyMs);
    return latencyMs;
  }

  get median() {
    const sorted = this.#measured.toSorted((a, b) => a - b);
    return sorted.length ? sorted[Math.floor((sorted.length - 1) / 2)] : null;
  }
}
