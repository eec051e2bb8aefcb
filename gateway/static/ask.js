// A question before something is lost.

import { t } from "./i18n.js";

// Resolves to whether the user confirmed. The keys are those of texts.
export function ask(headingKey, text, confirmKey) {
  const dialog = document.getElementById("question");
  dialog.querySelector("#question-title").textContent = t(headingKey);
  dialog.querySelector("#question-text").textContent = text;
  dialog.querySelector("#question-confirm").textContent = t(confirmKey);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "confirmed"), {
      once: true,
    });
  });
}
