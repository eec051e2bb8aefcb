// The lines of a transcription: final ones, which screen readers announce, and the partial one, which
// changes too often to be announced. With audio, a click on a word plays from there.

import { clock, languageOf } from "./formats.js";
import { onLanguage, problemText, t } from "./i18n.js";
import { timedWords } from "./words.js";

export class TranscriptView {
  #lines; // element with role="log"
  #partial;
  #scroller;
  #item = null;
  #drawn = new Map(); // by segment: what its line was made of, and its words
  #editing = false;
  #now = null;
  #onSeek;

  // onSeek: called with a position in ms.
  constructor({ lines, partial, scroller, onSeek }) {
    this.#lines = lines;
    this.#partial = partial;
    this.#scroller = scroller;
    this.#onSeek = onSeek;
    onLanguage(() => this.#redraw());
    lines.addEventListener("click", ({ target }) => {
      const place = target.closest("[data-start]");
      if (place && this.#item?.audio && this.#item.ended) onSeek(Number(place.dataset.start));
    });
  }

  show(item) {
    if (item !== this.#item) this.#editing = false;
    this.#item = item;
    this.#redraw();
  }

  get editing() {
    return this.#editing;
  }

  edit(editing) {
    this.#editing = editing;
    this.#redraw();
  }

  // The item has changed. Lines that have not stay, for they would be announced again.
  update() {
    // A line that the user empties stays, so that another text can be typed.
    const isShown = ({ text, code, segment_index: index }) => text || code || this.#drawn.has(index);
    const segments = this.#item?.segments.filter(isShown) ?? [];
    this.#lines.classList.toggle("playable", Boolean(this.#item?.ended && this.#item.audio));
    this.#keepAtEnd(() => {
      if (segments.length < this.#drawn.size) this.#clear();
      for (const segment of segments) this.#draw(segment);
      const partial = this.#item?.partial ?? "";
      this.#partial.textContent = partial;
      this.#partial.lang = languageOf(partial);
      this.#partial.hidden = !partial;
    });
  }

  // Marks the word at this position of the audio.
  showPosition(ms) {
    let found = null;
    for (const { words } of this.#drawn.values()) {
      if (!words.length || words[0].startMs > ms) continue;
      found = words.findLast((word) => word.startMs <= ms) ?? found;
    }
    if (found && ms > found.endMs + 500) found = null;
    if (found === this.#now) return;
    this.#now?.element.classList.remove("now");
    this.#now = found;
    found?.element.classList.add("now");
    found?.element.scrollIntoView({ block: "nearest" });
  }

  #clear() {
    this.#lines.replaceChildren();
    this.#drawn.clear();
    this.#now = null;
  }

  #redraw() {
    this.#clear();
    this.update();
  }

  #draw(segment) {
    const { segment_index: index, speaker, tokens } = segment;
    const before = this.#drawn.get(index);
    if (!before) {
      const row = this.#line(segment);
      this.#lines.append(row);
      this.#drawn.set(index, { row, speaker, tokens, words: [] });
      this.#setTimes(segment);
      return;
    }
    if (before.speaker !== speaker) showSpeaker(before.row, speaker);
    if (before.tokens !== tokens) this.#setTimes(segment);
    Object.assign(before, { speaker, tokens });
  }

  // Of the words, which have spans of their own.
  #setTimes(segment) {
    const drawn = this.#drawn.get(segment.segment_index);
    const elements = drawn.row.querySelectorAll(".word");
    if (!segment.text || !elements.length) return;
    drawn.words = timedWords(segment).map((word, i) => ({ ...word, element: elements[i] }));
    for (const { element, startMs } of drawn.words) element.dataset.start = Math.round(startMs);
  }

  #line(segment) {
    const row = document.createElement("p");
    row.className = segment.code ? "line line-failed" : "line";
    row.dataset.segment = segment.segment_index;
    if (segment.start_ms !== undefined) row.append(this.#time(segment));
    if (this.#editing && segment.text) {
      row.append(this.#field(segment));
      return row;
    }
    const words = document.createElement("span");
    words.className = "words";
    if (segment.text) {
      words.lang = languageOf(segment.text);
      words.append(...spans(segment));
    } else {
      words.textContent = problemText(segment.code, segment.message);
    }
    row.append(words);
    if (segment.text) {
      row.append(...tags(segment));
      showSpeaker(row, segment.speaker);
    }
    return row;
  }

  // A button, so that the keyboard can play from here, too.
  #time({ start_ms: startMs }) {
    const time = document.createElement("time");
    time.textContent = clock(startMs);
    time.dateTime = `PT${(startMs / 1000).toFixed(1)}S`;
    if (!this.#item.audio || !this.#item.ended) return time;
    const button = document.createElement("button");
    Object.assign(button, { type: "button", className: "seek", title: t("player.from_here") });
    button.setAttribute("aria-label", t("player.from", { time: clock(startMs) }));
    button.dataset.start = startMs;
    button.append(time);
    return button;
  }

  #field(segment) {
    const field = document.createElement("textarea");
    field.rows = 1;
    field.value = segment.text;
    field.lang = languageOf(segment.text);
    field.setAttribute("aria-label", t("edit.line", { time: clock(segment.start_ms) }));
    field.addEventListener("input", () =>
      this.#item.edit(segment.segment_index, field.value.replaceAll(/\s+/g, " ").trim()),
    );
    return field;
  }

  // Follow the text, unless the user has scrolled up.
  #keepAtEnd(change) {
    const { scrollTop, clientHeight, scrollHeight } = this.#scroller;
    const atEnd = this.#item?.active && scrollTop + clientHeight >= scrollHeight - 24;
    change();
    if (atEnd) this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }
}

// The text with a span for each word.
function spans(segment) {
  const parts = [];
  let done = 0;
  for (const { text, at } of timedWords(segment)) {
    const word = document.createElement("span");
    word.className = "word";
    word.textContent = text;
    parts.push(segment.text.slice(done, at), word);
    done = at + text.length;
  }
  return [...parts, segment.text.slice(done)];
}

function tags({ confidence, emotion, events = [] }) {
  const texts = [emotion, ...events].filter(Boolean).map((tag) => t(`tag.${tag}`, {}, tag));
  const found = texts.map((text) => tag("tag", text));
  if (confidence != null) {
    const percent = tag("confidence", `${Math.round(100 * confidence)} %`);
    percent.title = t("confidence");
    found.push(percent);
  }
  return found.length ? [group(found)] : [];
}

function tag(name, text) {
  const element = document.createElement("span");
  element.className = name;
  element.textContent = text;
  return element;
}

function group(elements) {
  const row = document.createElement("span");
  row.className = "tags";
  row.append(...elements);
  return row;
}

// Changes the name only, as the words of a changed line would be announced again.
function showSpeaker(row, speaker) {
  let name = row.querySelector(".speaker");
  if (!speaker) {
    name?.remove();
    return;
  }
  if (!name) {
    name = tag("speaker", "");
    row.querySelector(".words")?.prepend(name);
  }
  name.dataset.speaker = speaker;
  name.style.setProperty("--hue", (speaker - 1) * 67 + 210);
  name.textContent = `${t("speaker", { speaker })}: `;
}
