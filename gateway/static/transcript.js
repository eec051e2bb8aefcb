// The lines of a transcript: final ones, which screen readers announce, and the partial one, which
// changes too often to be announced.

import { asSrt, asText, clock, download, languageOf } from "./formats.js";
import { onLanguage, problemText, t } from "./i18n.js";

export class TranscriptView {
  #lines; // element with role="log"
  #partial;
  #scroller;
  #segments = new Map();

  constructor({ lines, partial = null, scroller = lines }) {
    this.#lines = lines;
    this.#partial = partial;
    this.#scroller = scroller;
    onLanguage(() => this.#redraw());
  }

  // In order of time.
  get segments() {
    return [...this.#segments.values()].sort((a, b) => a.segment_index - b.segment_index);
  }

  get empty() {
    return !this.#segments.size;
  }

  clear() {
    this.#segments.clear();
    this.#lines.replaceChildren();
    this.showPartial("");
  }

  add(segment) {
    this.#segments.set(segment.segment_index, segment);
    this.showPartial("");
    if (segment.text || segment.code) {
      this.#keepAtEnd(() => this.#lines.append(line(segment)));
    }
  }

  // The speaker of each segment, by its index: at the end of a session some are corrected.
  showSpeakers(speakers) {
    for (const segment of this.#segments.values()) {
      segment.speaker = speakers[segment.segment_index] ?? segment.speaker;
      const row = this.#lines.querySelector(`[data-segment="${segment.segment_index}"]`);
      if (row && segment.speaker) showSpeaker(row, segment.speaker);
    }
  }

  showPartial(text) {
    if (!this.#partial) return;
    this.#keepAtEnd(() => {
      this.#partial.textContent = text;
      this.#partial.lang = languageOf(text);
      this.#partial.hidden = !text;
    });
  }

  copy() {
    return navigator.clipboard
      ? navigator.clipboard.writeText(asText(this.segments))
      : Promise.reject(new Error("no clipboard in this context"));
  }

  download(kind, name) {
    if (kind === "srt") download(`${name}.srt`, "application/x-subrip", asSrt(this.segments));
    else download(`${name}.txt`, "text/plain", asText(this.segments));
  }

  // Failures and speakers are in the page's language; updating other lines would announce them again.
  #redraw() {
    if (!this.segments.some((segment) => segment.code || segment.speaker)) return;
    this.#lines.replaceChildren(...this.segments.filter((s) => s.text || s.code).map(line));
  }

  // Follow the text, unless the user has scrolled up.
  #keepAtEnd(change) {
    const { scrollTop, clientHeight, scrollHeight } = this.#scroller;
    const atEnd = scrollTop + clientHeight >= scrollHeight - 24;
    change();
    if (atEnd) this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }
}

function line(segment) {
  const row = document.createElement("p");
  row.className = segment.code ? "line line-failed" : "line";
  if (segment.start_ms !== undefined) {
    const time = document.createElement("time");
    time.textContent = clock(segment.start_ms);
    time.dateTime = `PT${(segment.start_ms / 1000).toFixed(1)}S`;
    row.append(time);
  }
  const words = document.createElement("span");
  words.textContent = segment.text ?? problemText(segment.code, segment.message);
  if (segment.text) words.lang = languageOf(segment.text);
  row.append(words);
  row.dataset.segment = segment.segment_index;
  if (segment.text && segment.speaker) showSpeaker(row, segment.speaker);
  return row;
}

// Changes the name only, as the words of a changed line would be announced again.
function showSpeaker(row, speaker) {
  let name = row.querySelector(".speaker");
  if (!name) {
    name = document.createElement("span");
    name.className = "speaker";
    row.lastChild.prepend(name);
  }
  if (name.dataset.speaker === String(speaker)) return;
  name.dataset.speaker = speaker;
  name.style.setProperty("--hue", (speaker - 1) * 67 + 210);
  name.textContent = `${t("speaker", { speaker })}: `;
}
