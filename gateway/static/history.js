// Stored sessions: a list, a dialog for one of them, and deletion after confirmation.

import { deleteSession, getHistory, getSession } from "./api.js";
import { clock, languageOf } from "./formats.js";
import { currentLanguage, onLanguage, problemText, t } from "./i18n.js";
import { TranscriptView } from "./transcript.js";

const LIMIT = 30;
const $ = (id) => document.getElementById(id);

export class HistoryList {
  #list = $("history");
  #note = $("history-note");
  #viewer = $("viewer");
  #question = $("question");
  #view = new TranscriptView({ lines: $("viewer-lines") });
  #records = [];
  #shown = null;
  #loads = 0;

  constructor() {
    $("history-reload").addEventListener("click", () => this.load());
    for (const button of this.#viewer.querySelectorAll("[data-download]")) {
      button.addEventListener("click", () =>
        this.#view.download(button.dataset.download, this.#shown.session_id),
      );
    }
    onLanguage(() => this.#draw());
  }

  async load() {
    this.#loads += 1;
    const load = this.#loads;
    try {
      const { records } = await getHistory(LIMIT);
      if (load !== this.#loads) return; // an older answer than what is asked for by now
      this.#records = records;
      this.#draw();
      this.#list.dataset.loaded = "";
    } catch (error) {
      this.#note.hidden = false;
      this.#note.textContent = problemText(error.code);
    }
  }

  #draw() {
    this.#list.replaceChildren(...this.#records.map((record) => this.#item(record)));
    this.#note.hidden = this.#records.length > 0;
    this.#note.textContent = t("history.empty");
  }

  #item(record) {
    const item = $("history-item").content.firstElementChild.cloneNode(true);
    const at = new Date(record.created_at);
    const when = at.toLocaleString(currentLanguage(), { dateStyle: "medium", timeStyle: "short" });
    const text = record.text || t("history.no_text");
    const words = item.querySelector(".history-text");
    words.textContent = text;
    words.lang = record.text ? languageOf(text) : currentLanguage();
    item.querySelector("time").textContent = when;
    item.querySelector("time").dateTime = record.created_at;
    item.querySelector(".history-duration").textContent = clock(record.duration * 1000);
    item.querySelector(".history-status").textContent =
      record.status === "completed" ? "" : t(`status.${record.status}`);
    item.dataset.session = record.session_id;
    const view = item.querySelector(".history-view");
    view.textContent = t("history.view");
    view.setAttribute("aria-label", t("history.view_label", { when }));
    view.addEventListener("click", () => this.#show(record, when));
    const remove = item.querySelector(".history-delete");
    remove.setAttribute("aria-label", t("history.delete_label", { when }));
    remove.title = t("history.delete");
    remove.addEventListener("click", () => this.#ask(record, when));
    return item;
  }

  async #show(record, when) {
    try {
      this.#shown = await getSession(record.session_id);
    } catch (error) {
      this.#note.hidden = false;
      this.#note.textContent = problemText(error.code);
      return;
    }
    $("viewer-title").textContent = when;
    this.#view.clear();
    for (const { error, ...segment } of this.#shown.segments) {
      this.#view.add({ ...segment, ...error });
    }
    $("viewer-empty").hidden = !this.#view.empty;
    this.#viewer.showModal();
  }

  #ask(record, when) {
    $("question-text").textContent = t("history.delete_question", { when });
    this.#question.returnValue = "";
    this.#question.showModal();
    this.#question.addEventListener(
      "close",
      () => {
        if (this.#question.returnValue === "delete") this.#delete(record);
      },
      { once: true },
    );
  }

  async #delete(record) {
    try {
      await deleteSession(record.session_id);
      this.#records = this.#records.filter(({ session_id: id }) => id !== record.session_id);
      this.#draw();
      this.#note.textContent = t("history.deleted");
      this.#note.hidden = false;
    } catch (error) {
      this.#note.hidden = false;
      this.#note.textContent = problemText(error.code);
    }
    // The focused button was removed with its row.
    $("history-title").focus();
  }
}
