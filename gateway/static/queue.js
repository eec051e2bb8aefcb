// The recordings and files of this visit: each with its progress. Files wait for their turn.

import { clock } from "./formats.js";
import { currentLanguage, problemText, t } from "./i18n.js";

export const titleOf = ({ name, startedAt }) => {
  const time = startedAt.toLocaleTimeString(currentLanguage(), { timeStyle: "short" });
  return name || t("item.recording", { time });
};

export function stateOf(item) {
  const { state, fromFile, name } = item;
  if (state === "live" && fromFile) return t("state.live_file", { name });
  if (state === "reconnecting" && fromFile) return t("state.reconnecting_file");
  if (item.runsElsewhere) return t("state.running");
  if (state === "done" && !item.segments.length) return t("state.done_silent");
  if (state === "done" && !item.stored) return t("state.done_unstored");
  return t(`state.${state}`);
}

export class QueueList {
  #list;
  #rows = new Map(); // by item
  #onSelect;
  #onRemove;

  constructor(list, { onSelect, onRemove }) {
    this.#list = list;
    this.#onSelect = onSelect;
    this.#onRemove = onRemove;
  }

  show(items, selected) {
    this.#list.hidden = !items.length;
    for (const [item, row] of this.#rows) {
      if (items.includes(item)) continue;
      row.remove();
      this.#rows.delete(item);
    }
    for (const item of items) this.#draw(item, item === selected);
  }

  #draw(item, selected) {
    let row = this.#rows.get(item);
    if (!row) {
      row = this.#row(item);
      this.#rows.set(item, row);
      this.#list.append(row);
    }
    const title = titleOf(item);
    row.dataset.state = item.state;
    set(row.querySelector(".queue-name"), title);
    set(row.querySelector(".queue-facts"), factsOf(item));
    const view = row.querySelector(".queue-view");
    const isNew = selected && view.getAttribute("aria-pressed") !== "true";
    view.setAttribute("aria-pressed", String(selected));
    const remove = row.querySelector(".queue-remove");
    const label = t(item.ended ? "item.remove" : "item.give_up", { name: title });
    remove.setAttribute("aria-label", label);
    remove.title = label;
    drawProgress(row.querySelector(".progress"), item, title);
    if (isNew) this.#reveal(row);
  }

  // Not by scrollIntoView(), which scrolls the page, too.
  #reveal(row) {
    const [all, one] = [this.#list, row].map((element) => element.getBoundingClientRect());
    this.#list.scrollTop += Math.max(0, one.bottom - all.bottom) + Math.min(0, one.top - all.top);
  }

  #row(item) {
    const row = document.getElementById("queue-item").content.firstElementChild.cloneNode(true);
    row.querySelector(".queue-view").addEventListener("click", () => this.#onSelect(item));
    row.querySelector(".queue-remove").addEventListener("click", () => this.#onRemove(item));
    return row;
  }
}

// Only a text that is another is set, so that screen readers and tests see changes.
function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function factsOf(item) {
  if (item.state === "failed") return item.problem ? problemText(item.problem.code) : "";
  if (item.ended) return `${clock(item.durationMs)} · ${t(`item.${item.state}`)}`;
  if (!item.active) return t("state.waiting");
  if (item.problem?.retryAfterS !== undefined) return problemText(item.problem.code, item.problem.message);
  if (!item.fromFile) return `${clock(item.durationMs)} · ${stateOf(item)}`;
  const sent = t("item.sent", { percent: Math.round(100 * item.uploaded) });
  const time = clock(item.durationMs);
  if (item.totalMs === null) return `${sent} · ${t("item.recognised", { time })}`;
  const all = clock(item.totalMs);
  return `${sent} · ${t("item.recognised_of", { time, all })}`;
}

// Two bars: the uploaded part, and above it the recognised part.
function drawProgress(bar, item, name) {
  bar.hidden = !item.fromFile || item.ended;
  if (bar.hidden) return;
  bar.setAttribute("aria-label", t("item.progress", { name }));
  const known = item.totalMs !== null;
  const recognised = known ? Math.min(1, item.durationMs / item.totalMs) : 0;
  bar.setAttribute("aria-valuenow", String(Math.round(100 * (known ? recognised : item.uploaded))));
  bar.style.setProperty("--uploaded", item.uploaded);
  bar.style.setProperty("--recognised", recognised);
}
