// The REST API of the server.

import { askForToken, currentToken } from "./auth-token.js";

export class ApiError extends Error {
  constructor(status, code) {
    super(`${status} ${code}`);
    this.status = status;
    this.code = code;
  }
}

// Asks for a token until the server accepts one, or the dialog is closed.
async function request(path, method = "GET", body = null) {
  for (;;) {
    const token = currentToken();
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    if (body !== null) headers["Content-Type"] = "application/json";
    const options = { method, headers, body, cache: "no-store" };
    const response = await fetch(path, options).catch(() => null);
    if (!response) throw new ApiError(0, "unreachable");
    if (response.status !== 401) return response;
    if (!(await askForToken(token))) throw new ApiError(401, "unauthorized");
  }
}

async function accepted(response) {
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new ApiError(response.status, body.code ?? "failed");
}

async function call(path, method = "GET") {
  return (await accepted(await request(path, method))).json();
}

const session = (id) => `/api/v1/session/${encodeURIComponent(id)}`;

// query: {limit, cursor, q}; empty ones are left out.
export function getHistory(query) {
  const given = Object.entries(query).filter(([, value]) => value);
  return call(`/api/v1/history?${new URLSearchParams(given)}`);
}

export const getSession = (id) => call(session(id));
export const getExport = async (id, format) =>
  (await accepted(await request(`${session(id)}?format=${format}`))).blob();
export const makeExport = async (segments, format) => {
  const body = JSON.stringify({ segments });
  return (await accepted(await request(`/api/v1/export?format=${format}`, "POST", body))).blob();
};
export const deleteSession = (id) => call(session(id), "DELETE");
export const getMessages = () => call("/asyncapi.json");
export const getSystem = () => call("/api/v1/system");

// 503 has a body with the state, too. Without a token, a server that requires one sends the status
// only.
export async function getHealth() {
  for (;;) {
    const token = currentToken();
    const health = await (await request("/api/v1/health")).json();
    if (health.models || !(await askForToken(token))) return health;
  }
}

// The reason why a WebSocket would be refused now; null if it would not, or if that is unknown.
// Without retryAfterS the refusal is permanent. sessionId: the session to resume, or null.
export async function whyRefused(sessionId) {
  try {
    const resume = sessionId === null ? "" : `?resume=${encodeURIComponent(sessionId)}`;
    const response = await request(`/api/v1/admission${resume}`);
    if (![429, 503].includes(response.status)) return null;
    const { code, message, retry_after_s: retryAfterS } = await response.json();
    return { code, message, retryAfterS };
  } catch ({ code = "unreachable" }) {
    return { code, message: "", retryAfterS: code === "unauthorized" ? null : 1 };
  }
}

export const socketUrl = () =>
  `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws/asr`;

// Browsers do not let a page set a header of an upgrade. A subprotocol is sent in a header, unlike a
// parameter of the address, which would be logged. The server accepts "asr".
export const socketProtocols = () => (currentToken() ? ["asr", `bearer.${currentToken()}`] : []);
