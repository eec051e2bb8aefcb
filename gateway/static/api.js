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
async function request(path, method = "GET") {
  for (;;) {
    const token = currentToken();
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const response = await fetch(path, { method, headers, cache: "no-store" }).catch(() => null);
    if (!response) throw new ApiError(0, "unreachable");
    if (response.status !== 401) return response;
    if (!(await askForToken(token))) throw new ApiError(401, "unauthorized");
  }
}

async function call(path, method = "GET") {
  const response = await request(path, method);
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new ApiError(response.status, body.code ?? "failed");
  return body;
}

const session = (id) => `/api/v1/session/${encodeURIComponent(id)}`;

export const getHistory = (limit) => call(`/api/v1/history?limit=${limit}`);
export const getSession = (id) => call(session(id));
export const deleteSession = (id) => call(session(id), "DELETE");
export const getDescription = () => call("/openapi.json");
export const getStats = () => call("/api/v1/stats");

// 503 has a body with the state, too.
export async function getHealth() {
  const response = await request("/api/v1/health");
  return response.json();
}

// The reason why a WebSocket would be refused now; null if it would not, or if that is unknown.
// Without retryAfterS the refusal is permanent. sessionId: the session to resume, or null.
export async function whyRefused(sessionId) {
  try {
    const resume = sessionId === null ? "" : `?resume=${encodeURIComponent(sessionId)}`;
    const response = await request(`/api/v1/admission${resume}`);
    if (response.status !== 503) return null;
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
