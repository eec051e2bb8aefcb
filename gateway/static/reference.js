// The page at /docs: the HTTP API, rendered from /openapi.json.

import { getDescription } from "./api.js";
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

// A schema in a few words: "integer", "SegmentAnswer[]", "string | null", "json | text".
function kindOf(schema = {}) {
  if (schema.$ref) return lastPart(schema.$ref);
  if (schema.anyOf) return schema.anyOf.map(kindOf).join(" | ");
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.type === "array") return `${kindOf(schema.items)}[]`;
  if (schema.format === "binary") return t("api.file");
  return schema.type ?? "–";
}

// All named schemas that `schema` refers to, directly or not, itself included.
function namesIn(schema, found = new Set()) {
  if (schema === null || typeof schema !== "object") return found;
  if (schema.$ref && !found.has(lastPart(schema.$ref))) {
    found.add(lastPart(schema.$ref));
    namesIn(description.components.schemas[lastPart(schema.$ref)], found);
  }
  for (const part of Object.values(schema)) namesIn(part, found);
  return found;
}

function fields(schema) {
  const required = new Set(schema.required ?? []);
  return Object.entries(schema.properties ?? {}).map(([name, field]) =>
    row(name, kindOf(field), required.has(name), field.description ?? ""),
  );
}

function row(name, kind, required, about) {
  const title = element("th", element("code", name));
  title.scope = "row";
  const words = [kind, required ? "" : t("api.optional"), about];
  return element("tr", [title, element("td", words.filter(Boolean).join(" · "))]);
}

function table(title, rows) {
  if (!rows.length) return [];
  const scroll = element("div", element("table", element("tbody", rows)), "scroll");
  scroll.tabIndex = 0;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", title);
  return [element("h3", title), scroll];
}

function parameters({ parameters: given = [] }) {
  return given.map(({ name, schema, required, description: about = "", in: place }) =>
    row(name, kindOf(schema), required, [t(`api.in_${place}`), about].filter(Boolean).join(" · ")),
  );
}

const contentOf = (message) => Object.entries(message?.content ?? {})[0] ?? ["", {}];

function answers(operation) {
  return Object.entries(operation.responses).map(([status, answer]) => {
    const kind = kindOf(contentOf(answer)[1].schema);
    return row(status, kind === "–" ? "" : kind, true, answer.description ?? "");
  });
}

function named(operation) {
  return [...namesIn(operation.responses)].map((name) => {
    const rows = fields(description.components.schemas[name]);
    return element("details", [element("summary", name), ...table(name, rows)]);
  });
}

function card(path, method, operation) {
  const [mediaType, body] = contentOf(operation.requestBody);
  const title = element("h2", [
    element("span", method.toUpperCase(), `method ${method}`),
    element("code", path),
  ]);
  const about = (operation.description ?? operation.summary).replaceAll("``", "");
  const made = element("section", [title, element("p", about)], "card");
  if (method === "get" && !path.includes("{")) {
    const link = element("a", t("api.open"));
    link.href = path;
    made.append(element("p", link));
  }
  made.append(
    ...table(t("api.parameters"), parameters(operation)),
    ...table(`${t("api.form")} ${mediaType}`, body.schema ? fields(body.schema) : []),
    ...table(t("api.answers"), answers(operation)),
    ...named(operation),
  );
  return made;
}

function draw() {
  document.title = t("nav.api");
  if (!description) return;
  const cards = Object.entries(description.paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, operation]) => card(path, method, operation)),
  );
  $("operations").replaceChildren(...cards);
}

async function load() {
  try {
    description = await getDescription();
    draw();
  } catch {
    $("problem").textContent = t("api.unreachable");
    $("problem").hidden = false;
  }
}

onLanguage(draw);
setUpLanguage();
load();
