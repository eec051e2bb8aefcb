// The token for the server. It is kept for this tab only, and requested if there is no valid one.

import { t } from "./i18n.js";

const KEY = "access-token";
const PATTERN = "\\s*[A-Za-z0-9_\\-]+\\s*"; // whatever else it is, it is none

let token = remembered();
let asking = null;
let declined = false;

function remembered() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return ""; // storage is switched off; it is asked for on each page then
  }
}

export const currentToken = () => token;

// Resolves to whether there is another token than `refused`. Concurrent calls share one dialog. After
// it is closed without a token it does not open again until the page is reloaded.
export async function askForToken(refused) {
  if (token !== refused) return true;
  if (declined) return false;
  asking ??= answer(refused !== "").finally(() => {
    asking = null;
  });
  return asking;
}

function answer(wrong) {
  const dialog = build(wrong);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const given = dialog.querySelector("input").value.trim();
      dialog.remove();
      declined = dialog.returnValue !== "given";
      if (!declined) keep(given);
      resolve(!declined);
    });
  });
}

function keep(given) {
  token = given;
  try {
    sessionStorage.setItem(KEY, token);
  } catch {
    // Not stored; it is valid for this page.
  }
}

function build(wrong) {
  const dialog = document.createElement("dialog");
  dialog.id = "token-dialog";
  dialog.setAttribute("aria-labelledby", "token-title");
  const texts = [
    ["h2", "token-title", "token.heading"],
    ["p", "token-about", wrong ? "token.wrong" : "token.about"],
    ["label", "token-label", "token.label"],
  ].map(([name, id, key]) => {
    const element = document.createElement(name);
    element.id = id;
    element.dataset.text = key;
    element.textContent = t(key);
    return element;
  });
  const [heading, about, label] = texts;
  const input = document.createElement("input");
  Object.assign(input, {
    id: "token",
    type: "password",
    autocomplete: "off",
    required: true,
    pattern: PATTERN,
  });
  input.setAttribute("aria-describedby", about.id);
  label.htmlFor = input.id;
  const button = document.createElement("button");
  Object.assign(button, { className: "button", value: "given", textContent: t("token.give") });
  button.dataset.text = "token.give";
  const form = document.createElement("form");
  form.method = "dialog";
  form.append(label, input, button);
  dialog.append(heading, about, form);
  return dialog;
}
