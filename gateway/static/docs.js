// The page at /docs: the HTTP API in Swagger UI, which can call it, and the messages of the native
// WebSocket protocol from /asyncapi.json.

import { getMessages } from "./api.js";
import { currentToken } from "./auth-token.js";
import { onLanguage, setUpLanguage, t } from "./i18n.js";

const $ = (id) => document.getElementById(id);

let description = null;

function element(name, content = "", className = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...(Array.isArray(content) ? content : [content]));
  return made;
}

const lastPart = (reference) => reference.split("/").pop();

// A schema in a few words: "integer", "StartWarning[]", "string | null", "json | text".
function kindOf(schema = {}) {
  if (schema.$ref) return lastPart(schema.$ref);
  if (schema.anyOf) return schema.anyOf.map(kindOf).join(" | ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.const) return JSON.stringify(schema.const);
  if (schema.type === "array") return `${kindOf(schema.items)}[]`;
  return schema.contentEncoding ?? schema.type ?? "–";
}

function row(name, field, required) {
  const title = element("th", element("code", name));
  title.scope = "row";
  const preset = field.default ?? null;
  const words = [
    kindOf(field),
    required ? "" : t("api.optional"),
    preset === null || typeof preset === "object" ? "" : `${t("api.default")} ${preset}`,
  ];
  return element("tr", [title, element("td", words.filter(Boolean).join(" · "))]);
}

function table(name, schema) {
  const required = new Set(schema.required ?? []);
  const rows = Object.entries(schema.properties ?? {}).map(([field, kind]) =>
    row(field, kind, required.has(field)),
  );
  const scroll = element("div", element("table", element("tbody", rows)), "scroll");
  scroll.tabIndex = 0;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", name);
  return scroll;
}

// A text whose ``names`` are code.
const marked = (text) =>
  text.split("``").map((part, index) => (index % 2 ? element("code", part) : part));

function message({ name, summary, payload }) {
  const title = element("summary", [element("code", name), " ", ...marked(summary ?? "")]);
  if (!payload) return element("details", title);
  const schema = description.components.schemas[lastPart(payload.$ref)];
  return element("details", [title, table(name, schema)]);
}

function draw() {
  document.title = t("nav.api");
  if (!description) return;
  for (const [place, operation] of [["from-client", "fromClient"], ["to-client", "toClient"]]) {
    const names = description.operations[operation].messages.map(({ $ref }) => lastPart($ref));
    const messages = names.map((name) => message(description.components.messages[name]));
    $(place).replaceChildren(...messages);
  }
}

async function load() {
  try {
    description = await getMessages();
    draw();
  } catch {
    $("problem").textContent = t("api.unreachable");
    $("problem").hidden = false;
  }
}

onLanguage(draw);
setUpLanguage();
load();

const reference = window.SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#operations",
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null, // Swagger's would be asked at another host.
  onComplete: () => {
    const token = currentToken();
    if (token) reference.preauthorizeApiKey("token", token);
  },
});
