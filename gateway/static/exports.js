// A transcription as a file. The server writes all formats, so that the page and the API give the same
// bytes: of the stored session, or of the texts on this page if they were edited or are not stored.

import { getExport, makeExport } from "./api.js";

const pad = (number) => String(number).padStart(2, "0");

// "2026-05-04_14-30_meeting.srt": the date, and the name of the file if there is one.
export function fileName({ name, startedAt: at }, suffix) {
  const date = `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}`;
  const stem = name.replace(/\.[^.]*$/, "").replaceAll(/[\\/:*?"<>|\p{Cc}]/gu, "_");
  const parts = [date, `${pad(at.getHours())}-${pad(at.getMinutes())}`, stem || "recording"];
  return `${parts.join("_")}.${suffix}`;
}

// format: "text", "srt", "vtt" or "json". Throws ApiError.
export function contentOf(item, format) {
  if (item.stored && !item.edited) return getExport(item.sessionId, format);
  const segments = item.spoken.map(({ text, start_ms, end_ms, speaker, tokens }) => ({
    text,
    start_ms,
    end_ms,
    speaker: speaker ?? null,
    tokens: tokens ?? [],
  }));
  return makeExport(segments, format);
}

export async function download(item, format) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await contentOf(item, format));
  link.download = fileName(item, format === "text" ? "txt" : format);
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
