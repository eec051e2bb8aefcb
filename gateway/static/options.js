// The user's choices for the next sessions, as far as the server's models and the browser offer any:
// model, language, hotwords, microphone. They are kept in the browser.

import { currentLanguage, onLanguage, t } from "./i18n.js";
import { choicesBefore, keepChoices } from "./remembered.js";

const FIELDS = ["model", "asr-language", "hotwords", "device"];
const $ = (id) => document.getElementById(id);

export class Options {
  #served = [];
  #devices = [];

  constructor() {
    const before = choicesBefore();
    for (const id of FIELDS) {
      $(id).dataset.wanted = before[id] ?? "";
      $(id).addEventListener("change", () => this.#keep(id));
    }
    $("hotwords").value = $("hotwords").dataset.wanted;
    onLanguage(() => this.#draw());
    navigator.mediaDevices?.addEventListener("devicechange", () => this.findDevices());
    this.findDevices();
  }

  // The models that the server has, as in HealthAnswer.
  setModels(served) {
    this.#served = served;
    this.#draw();
  }

  // Browsers tell names only once the microphone was allowed.
  async findDevices() {
    const devices = (await navigator.mediaDevices?.enumerateDevices().catch(() => [])) ?? [];
    this.#devices = devices.filter(({ kind, label }) => kind === "audioinput" && label);
    this.#draw();
  }

  get deviceId() {
    return $("device").value;
  }

  // As in `start`. Abilities that the model lacks are not requested.
  get start() {
    const models = this.#chosenModels();
    const options = { speakers: models.some(({ abilities }) => abilities.speakers) };
    if ($("model").value) options.model = $("model").value;
    if ($("asr-language").value) options.language = $("asr-language").value;
    const hotwords = this.#takesHotwords() ? wordsOf($("hotwords").value) : [];
    if (hotwords.length) options.hotwords = hotwords;
    return options;
  }

  #chosenModels() {
    const chosen = this.#served.filter(({ name }) => name === $("model").value);
    return chosen.length ? chosen : this.#served;
  }

  #takesHotwords() {
    return this.#chosenModels().some(({ abilities }) => abilities.hotwords !== "none");
  }

  #keep(id) {
    $(id).dataset.wanted = $(id).value;
    keepChoices(Object.fromEntries(FIELDS.map((field) => [field, $(field).dataset.wanted])));
    if (id === "model") this.#draw();
  }

  #draw() {
    const models = this.#served.map(({ name }) => [name, name]);
    fill($("model"), t("options.automatic"), models, this.#served.length > 1);
    const chosen = this.#chosenModels();
    const codes = [...new Set(chosen.flatMap(({ abilities }) => abilities.languages))];
    const matters = chosen.length > 1 || chosen.some(({ abilities }) => abilities.takes_language);
    const languages = codes.map((code) => [code, languageName(code)]);
    languages.sort(([, a], [, b]) => a.localeCompare(b, currentLanguage()));
    fill($("asr-language"), t("options.automatic"), languages, matters && codes.length > 1);
    $("hotwords").parentElement.hidden = !this.#takesHotwords();
    const devices = this.#devices.filter(({ deviceId }) => deviceId !== "default");
    const named = devices.map(({ deviceId, label }) => [deviceId, label]);
    fill($("device"), t("options.default_device"), named, named.length > 0);
    $("options").hidden = FIELDS.every((id) => $(id).parentElement.hidden);
  }
}

// A choice that is hidden, or not there any more, is the first one: ask for nothing.
function fill(select, first, entries, shown) {
  const options = [["", first], ...entries].map(([value, text]) => new Option(text, value));
  select.replaceChildren(...options);
  select.parentElement.hidden = !shown;
  select.value = shown ? select.dataset.wanted : "";
  if (select.selectedIndex < 0) select.value = "";
}

function languageName(code) {
  try {
    return new Intl.DisplayNames(currentLanguage(), { type: "language" }).of(code);
  } catch {
    return code; // not a code that browsers know
  }
}

const wordsOf = (text) =>
  text.split(/[,，、;；\n]+/).map((word) => word.trim()).filter(Boolean);
