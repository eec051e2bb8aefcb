// The language of the page, English or Chinese. It is stored in the browser.

import { TITLES } from "./audio-formats.js";
import { texts } from "./texts.js";

const KEY = "page-language";
const LANGUAGES = ["en", "zh-CN"];
const listeners = new Set();

function remembered() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null; // storage is switched off; the browser's own language will do
  }
}

function initial() {
  const found = remembered();
  if (LANGUAGES.includes(found)) return found;
  return navigator.language.toLowerCase().startsWith("zh") ? "zh-CN" : "en";
}

let language = initial();

export const currentLanguage = () => language;

// The text of `key`, with {name} replaced; `otherwise` if it has no text.
export function t(key, values = {}, otherwise = key) {
  const text = texts[language][key] ?? texts.en[key] ?? otherwise;
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

// The text for an error code, or the message of the server if there is none.
export function problemText(code, message = "") {
  const key = `problem.${code}`;
  if (texts[language][key]) return t(key, { formats: TITLES.join(", ") });
  return message ? `${message} (${code})` : t("problem.unknown", { code });
}

export function onLanguage(listener) {
  listeners.add(listener);
}

function translate() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-text]")) {
    element.textContent = t(element.dataset.text);
  }
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", t(element.dataset.label));
  }
  for (const element of document.querySelectorAll("[data-hint]")) {
    element.title = t(element.dataset.hint);
  }
  for (const field of document.querySelectorAll("[data-placeholder]")) {
    field.placeholder = t(field.dataset.placeholder);
  }
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", String(button.dataset.language === language));
  }
  for (const listener of listeners) listener();
}

export function setUpLanguage() {
  for (const button of document.querySelectorAll("[data-language]")) {
    button.addEventListener("click", () => {
      language = button.dataset.language;
      try {
        localStorage.setItem(KEY, language);
      } catch {
        // Not stored; the choice applies to this visit.
      }
      translate();
    });
  }
  translate();
}
