// State kept in the browser: the running sessions of this tab, the names of files, edited texts, and the
// choices of the user. Without storage (it may be switched off) nothing is kept, and everything else works.

const RUNNING = "running-sessions";
const NAMES = "file-names";
const EDITS = "edits";
const CHOICES = "choices";
export const NAMES_MAX = 500; // the newest are kept
export const EDITED_MAX = 100; // sessions; those whose first edit is the newest are kept
export const LOCK_WAIT_MS = 2_000;

// `get` returns the storage: only to name it throws if it is switched off.
function read(get, key, otherwise) {
  try {
    return JSON.parse(get().getItem(key)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

// Returns whether it is kept: storage may be switched off or full.
function write(get, key, value) {
  try {
    get().setItem(key, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

const tab = () => sessionStorage;
const browser = () => localStorage;

// A running session as Transcription.before takes it: with its token it can be resumed.
export function keepRunning(session) {
  write(tab, RUNNING, { ...read(tab, RUNNING, {}), [session.sessionId]: session });
}

export function forgetRunning(sessionId) {
  const { [sessionId]: _, ...others } = read(tab, RUNNING, {});
  write(tab, RUNNING, others);
}

export const runningBefore = () => Object.values(read(tab, RUNNING, {}));

export function keepName(sessionId, name) {
  const names = Object.entries(read(browser, NAMES, {})).slice(1 - NAMES_MAX);
  write(browser, NAMES, Object.fromEntries([...names, [sessionId, name]]));
}

export const nameOf = (sessionId) => read(browser, NAMES, {})[sessionId] ?? "";

// Texts of the user in place of those of segments. Returns whether the text is kept.
export function keepEdit(sessionId, segmentIndex, text) {
  const edits = read(browser, EDITS, {});
  edits[sessionId] = { ...edits[sessionId], [segmentIndex]: text };
  return write(browser, EDITS, Object.fromEntries(Object.entries(edits).slice(-EDITED_MAX)));
}

// By segment index.
export const editsOf = (sessionId) => read(browser, EDITS, {})[sessionId] ?? {};

export function dropEdits(sessionId) {
  const { [sessionId]: _, ...others } = read(browser, EDITS, {});
  write(browser, EDITS, others);
}

export const keepChoices = (choices) => write(browser, CHOICES, choices);
export const choicesBefore = () => read(browser, CHOICES, {});

// Runs `run` unless another tab does: a duplicated tab remembers the same sessions. A page that is
// being reloaded gives the lock back a moment later.
export async function exclusively(sessionId, run) {
  if (!navigator.locks) return run(); // in secure contexts only
  const signal = AbortSignal.timeout(LOCK_WAIT_MS);
  return navigator.locks.request(`session ${sessionId}`, { signal }, run).catch((error) => {
    if (error.name !== "TimeoutError") throw error;
    forgetRunning(sessionId);
  });
}
