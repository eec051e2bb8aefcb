// Stored sessions: a list in pages, search while the user types, and deletion after confirmation.

import { deleteSession, getHistory } from "./api.js";
import { ask } from "./ask.js";
import { clock, languageOf } from "./formats.js";
import { currentLanguage, onLanguage, problemText, t } from "./i18n.js";
import { dropEdits, nameOf } from "./remembered.js";

const PAGE_RECORDS = 20;
const TYPING_MS = 250;
const $ = (id) => document.getElementById(id);

function whyWithoutText({ status, segment_count: segments, duration }) {
  if (status === "active") return "history.running";
  if (status !== "completed" || segments) return "history.no_text";
  return duration ? "history.no_speech" : "history.no_audio";
}

export class HistoryList {
  #list = $("history");
  #note = $("history-note");
  #records = null; // until the first answer
  #cursor = null;
  #loads = 0;
  #typing = null;
  #onView;

  // onView: called with the id of a session.
  constructor(onView) {
    this.#onView = onView;
    $("history-reload").addEventListener("click", () => this.load());
    $("history-more").addEventListener("click", () => this.#loadMore());
    $("history-search").addEventListener("input", () => {
      clearTimeout(this.#typing);
      this.#typing = setTimeout(() => this.load(), TYPING_MS);
    });
    onLanguage(() => this.#records && this.#draw());
  }

  load() {
    return this.#fetch("");
  }

  // The focus goes to the first of the new ones: the button may be gone.
  async #loadMore() {
    const before = this.#records.length;
    await this.#fetch(this.#cursor, this.#records);
    this.#list.children[before]?.querySelector(".history-view").focus();
  }

  async #fetch(cursor, before = []) {
    this.#loads += 1;
    const load = this.#loads;
    const words = $("history-search").value.trim();
    try {
      // While the user types, the last word may be incomplete.
      const q = /[a-z0-9]$/i.test(words) ? `${words}*` : words;
      const { records, next_cursor: next } = await getHistory({ limit: PAGE_RECORDS, cursor, q });
      if (load !== this.#loads) return; // the answer to an older request
      this.#records = [...before, ...records];
      this.#cursor = next;
      this.#draw();
      this.#list.dataset.loaded = words;
    } catch (error) {
      if (load !== this.#loads) return;
      if (!words || error.code !== "invalid_request") return this.#say(problemText(error.code));
      this.#records = []; // no letter or digit to search for, or too many of them
      this.#cursor = null;
      this.#draw();
    }
  }

  #say(text) {
    this.#note.hidden = false;
    this.#note.textContent = text;
  }

  #draw() {
    this.#list.replaceChildren(...this.#records.map((record) => this.#item(record)));
    $("history-more").hidden = !this.#cursor;
    this.#note.hidden = this.#records.length > 0;
    this.#note.textContent = t($("history-search").value.trim() ? "history.none" : "history.empty");
  }

  #item(record) {
    const item = $("history-item").content.firstElementChild.cloneNode(true);
    const at = new Date(record.created_at);
    const when = at.toLocaleString(currentLanguage(), { dateStyle: "medium", timeStyle: "short" });
    const text = record.preview || t(whyWithoutText(record));
    const words = item.querySelector(".history-text");
    words.textContent = text;
    words.lang = record.preview ? languageOf(text) : currentLanguage();
    item.querySelector("time").textContent = when;
    item.querySelector("time").dateTime = record.created_at;
    item.querySelector(".history-name").textContent = nameOf(record.session_id);
    item.querySelector(".history-duration").textContent = clock(record.duration * 1000);
    // With an error, a part of the text of a completed session is missing.
    const status = record.status === "completed" && record.error ? "failed" : record.status;
    item.querySelector(".history-status").textContent =
      status === "completed" ? "" : t(`status.${status}`);
    item.dataset.session = record.session_id;
    const view = item.querySelector(".history-view");
    view.textContent = t("history.view");
    view.setAttribute("aria-label", t("history.view_label", { when }));
    view.addEventListener("click", () => this.#onView(record.session_id));
    const remove = item.querySelector(".history-delete");
    remove.setAttribute("aria-label", t("history.delete_label", { when }));
    remove.title = t("history.delete");
    remove.addEventListener("click", () => this.#delete(record, when));
    return item;
  }

  async #delete({ session_id: id }, when) {
    const text = t("history.delete_question", { when });
    if (!(await ask("history.delete_heading", text, "history.delete"))) return;
    try {
      await deleteSession(id);
      dropEdits(id);
      this.#records = this.#records.filter(({ session_id: one }) => one !== id);
      this.#draw();
      this.#say(t("history.deleted"));
    } catch (error) {
      this.#say(problemText(error.code));
    }
    // The focused button was removed with its row.
    $("history-title").focus();
  }
}
