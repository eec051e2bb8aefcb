// The server's REST, in one place.

// What proves who we are. Nothing yet: the server has no authentication of its own.
export function credentials() {
  return {};
}

export class ApiError extends Error {
  constructor(status, code) {
    super(`${status} ${code}`);
    this.status = status;
    this.code = code;
  }
}

async function call(path, method = "GET") {
  let response;
  try {
    response = await fetch(path, { method, headers: credentials(), cache: "no-store" });
  } catch {
    throw new ApiError(0, "unreachable");
  }
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

// Health tells its state with 503, too.
export async function getHealth() {
  const response = await fetch("/api/v1/health", { headers: credentials(), cache: "no-store" });
  return response.json();
}

// Why a WebSocket would be refused now; null if it would not, or nobody can say.
export async function whyRefused() {
  try {
    const response = await fetch("/api/v1/admission", {
      headers: credentials(),
      cache: "no-store",
    });
    if (response.status !== 503) return null;
    const { code, message, retry_after_s: retryAfterS } = await response.json();
    return { code, message, retryAfterS };
  } catch {
    return { code: "unreachable", message: "", retryAfterS: 1 };
  }
}

export const socketUrl = () =>
  `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws/asr`;
