// A client of the native protocol at /ws/asr, for browsers and for Node. A session survives lost
// connections: the client reconnects, resumes with the session's token, and sends the chunks again
// that the server does not have. No DOM, no dependencies.
//
//   const source = new LiveSource();                       // or new FileSource(blob)
//   const session = new AsrSession({ url, source });
//   session.addEventListener("segment", ({ detail }) => console.log(detail.text));
//   const { text } = await session.run();                  // source.push(pcm) …, source.end()
//
// Events, each with its `detail`:
//   state     "connecting" | "live" | "finishing" | "reconnecting" | "done" | "failed"
//   refused   {code, message, retryAfterS}: the session tries again, unless retryAfterS is null
//   started   {token, nextChunk, warnings}: acknowledged. The session that is resumed after a
//             reload of the page starts with `token`; its source continues with chunk `nextChunk`.
//   received  the number of chunks that the server has acknowledged
//   restarted the server has lost the session: discard its earlier results
//   partial   {segment_index, text}: replaced by the next one, and finally by a segment
//   segment   {segment_index, start_ms, end_ms, text, speaker?} or {segment_index, code, message}
//   problem   {code, message}: an error answer; the session continues

export const CONNECT_AGAIN_S_MAX = 90; // without success for this long, the session fails
export const BACKOFF_MS_MAX = 5_000;
export const SILENCE_MS_MAX = 30_000; // no answer while chunks are sent: the connection is dead
export const FINISH_SILENCE_MS_MAX = 90_000; // likewise after the last; texts may take their time
export const BUFFERED_BYTES_MAX = 2 ** 20; // in the socket; then the source has to wait

const FATAL_CLOSES = new Set([1000, 1003, 1007, 1008, 1009]);
const FATAL_ERRORS = new Set(["not_resumable", "session_exists", "deleted", "unknown_model"]);

export class SessionError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

// crypto.randomUUID exists in secure contexts only; crypto.getRandomValues everywhere.
export function newSessionId() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

export class AsrSession extends EventTarget {
  #url;
  #source;
  #options;
  #whyRefused;
  #protocols;
  #socket = null;
  #token = null;
  #cursor = 0; // the next chunk to send
  #nextSegment = 0;
  #finishSent = false;
  #heardMs = 0;
  #failure = null;
  #final = null;
  #wake = null;

  // options: mode, model, language, hotwords, user_id, sample_rate, partials, speakers, as in `start`.
  // token: of a session that was started before a reload of the page; its texts are sent again.
  // whyRefused: an async function of the id of the session to resume, or null. It returns
  // {code, message, retryAfterS} or null. Browsers do not show the answer to a refused upgrade.
  // protocols: a function that returns the subprotocols to offer at each connection:
  // ["asr", `bearer.${token}`] if the server requires a token.
  constructor({
    url,
    source,
    sessionId = newSessionId(),
    token = null,
    options = {},
    whyRefused = null,
    protocols = () => [],
  }) {
    super();
    this.#url = url;
    this.#source = source;
    this.#options = options;
    this.#whyRefused = whyRefused;
    this.#protocols = protocols;
    this.#token = token;
    this.sessionId = sessionId;
    this.state = "new";
  }

  // Resolves to the final_result; rejects with a SessionError. Call it once.
  async run() {
    let sinceMs = performance.now();
    for (let tries = 0; !this.#final; tries += 1) {
      this.#setState(this.#token ? "reconnecting" : "connecting");
      const { acknowledged, code } = await this.#converse();
      if (this.#final) break;
      if (!this.#failure && FATAL_CLOSES.has(code)) {
        this.#failure = new SessionError(`close_${code}`, `the server closed with ${code}`);
      }
      if (this.#failure) throw this.#fail(this.#failure);
      if (acknowledged) {
        tries = 0;
        sinceMs = performance.now();
      }
      if (performance.now() - sinceMs > CONNECT_AGAIN_S_MAX * 1000) {
        throw this.#fail(new SessionError("unreachable", "the server could not be reached"));
      }
      if (this.#token) this.#setState("reconnecting");
      await this.#pause(tries, acknowledged);
      if (this.#failure) throw this.#fail(this.#failure);
    }
    this.#setState("done");
    return this.#final;
  }

  // Try again at once, for example because the network is available again.
  retryNow() {
    this.#wake?.();
  }

  // End without a final result. The server stores the audio so far.
  abandon() {
    this.#failure ??= new SessionError("abandoned", "the session was left");
    this.#socket?.close();
    this.#wake?.();
  }

  #fail(error) {
    this.#setState("failed");
    return error;
  }

  #setState(state) {
    if (state === this.state) return;
    this.state = state;
    this.#tell("state", state);
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  async #pause(tries, acknowledged) {
    let waitMs = Math.min(BACKOFF_MS_MAX, 250 * 2 ** tries) * (0.5 + Math.random() / 2);
    if (!acknowledged && this.#whyRefused) {
      const refusal = await this.#whyRefused(this.#token ? this.sessionId : null);
      if (refusal) {
        this.#tell("refused", refusal);
        if (refusal.retryAfterS === null) {
          this.#failure ??= new SessionError(refusal.code, refusal.message);
          return;
        }
        waitMs = Math.max(waitMs, refusal.retryAfterS * 1000);
      }
    }
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, waitMs);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = null;
  }

  // One connection, from opening to close.
  #converse() {
    return new Promise((resolve) => {
      const socket = new WebSocket(this.#address(), this.#protocols());
      socket.binaryType = "arraybuffer";
      this.#socket = socket;
      this.#finishSent = false;
      this.#heardMs = performance.now();
      let acknowledged = false;
      const watch = setInterval(() => {
        const silenceMsMax = this.#finishSent ? FINISH_SILENCE_MS_MAX : SILENCE_MS_MAX;
        if (performance.now() - this.#heardMs > silenceMsMax) end(1006);
      }, 1_000);
      const end = (code) => {
        if (this.#socket !== socket) return;
        this.#socket = null; // a dead connection's close event may be minutes away
        clearInterval(watch);
        socket.close();
        resolve({ acknowledged, code });
      };
      socket.onopen = () => socket.send(JSON.stringify(this.#start()));
      socket.onclose = ({ code }) => end(code);
      socket.onmessage = ({ data }) => {
        if (this.#socket !== socket) return;
        this.#heardMs = performance.now();
        const message = JSON.parse(data);
        if (message.type === "ack" && message.status !== "received") acknowledged = true;
        if (this.#take(message, socket) === "again") end(1006);
        if (this.#final) end(1000); // the server keeps the connection open for another session
      };
    });
  }

  // A server that refuses new sessions still admits sessions that resume.
  #address() {
    const address = new URL(this.#url, globalThis.location?.href);
    if (this.#token) address.searchParams.set("resume", this.sessionId);
    return address;
  }

  #start() {
    const resuming = this.#token && {
      resume_token: this.#token,
      next_segment_index: this.#nextSegment,
    };
    return {
      action: "start",
      session_id: this.sessionId,
      partials: true,
      ...this.#options,
      ...resuming,
    };
  }

  #take(message, socket) {
    switch (message.type) {
      case "ack":
        if (message.status !== "received") this.#onStarted(message, socket);
        else this.#tell("received", message.chunk_index + 1);
        return null;
      case "partial_result":
        if (message.segment_index >= this.#nextSegment) this.#tell("partial", message);
        return null;
      case "chunk_result":
        // Without a segment_index the file in the chunk is silent.
        if (message.segment_index !== undefined) this.#onSegment(message);
        return null;
      case "final_result":
        this.#final = message;
        return null;
      case "error":
        return this.#onError(message);
      default:
        return null; // of a newer server
    }
  }

  #onStarted({ status, resume_token: token, next_chunk_index: nextChunk, warnings }, socket) {
    if (this.#token && status === "session_started") {
      this.#nextSegment = 0;
      this.#tell("restarted", null);
    }
    this.#token = token;
    this.#cursor = nextChunk;
    this.#tell("started", { token, nextChunk, warnings: warnings ?? [] });
    this.#setState("live");
    this.#pump(socket);
  }

  #onSegment(segment) {
    if (segment.segment_index < this.#nextSegment) return; // received before the connection was lost
    this.#nextSegment = segment.segment_index + 1;
    this.#tell("segment", segment);
  }

  #onError(error) {
    if (error.code === "resume_unavailable") return "again";
    if (error.code === "session_exists" && !this.#token) {
      // The first start arrived, and its answer was lost. No audio was sent yet: start another session.
      this.sessionId = newSessionId();
      return "again";
    }
    const startRefused = error.code === "bad_message" && this.state === "connecting";
    if (FATAL_ERRORS.has(error.code) || startRefused) {
      this.#failure = new SessionError(error.code, error.message);
      this.#socket.close();
    } else if (error.code === "expected_seq") {
      this.#cursor = error.expected_chunk_index;
    } else if (error.segment_index !== undefined) {
      this.#onSegment(error);
    } else {
      this.#tell("problem", error);
    }
    return null;
  }

  // Sends chunks until the source ends or this connection does.
  async #pump(socket) {
    const current = () => this.#socket === socket && socket.readyState === WebSocket.OPEN;
    try {
      while (current()) {
        const index = this.#cursor;
        const chunk = await this.#source.get(index);
        while (current() && socket.bufferedAmount > BUFFERED_BYTES_MAX) {
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
        if (!current()) return;
        if (index !== this.#cursor) continue; // the server wants another one
        if (chunk === null) break;
        socket.send(chunk);
        this.#cursor += 1;
      }
    } catch (error) {
      if (!current()) return;
      this.#failure = new SessionError("replay_gone", error.message);
      socket.close();
      return;
    }
    if (!current() || this.#finishSent) return;
    this.#finishSent = true;
    socket.send(JSON.stringify({ action: "finish", session_id: this.sessionId }));
    this.#setState("finishing");
  }
}
