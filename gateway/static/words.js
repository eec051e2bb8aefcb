// The words of a segment with their times: those of the model if it has as many words, else each gets
// its share of the segment's time.

const CJK = "\\u3040-\\u30ff\\u3400-\\u9fff\\uac00-\\ud7af";
const WORDS = new RegExp(`(?:[${CJK}]|[^\\s${CJK}]+)\\p{P}*`, "gu"); // with the marks that follow

// Returns [{text, at, startMs, endMs}]; `at` is the word's place in the text.
export function timedWords({ text, start_ms: startMs, end_ms: endMs, tokens = [] }) {
  const words = [...text.matchAll(WORDS)].map(({ 0: word, index: at }) => ({ text: word, at }));
  const total = words.reduce((sum, word) => sum + word.text.length, 0);
  let done = 0;
  words.forEach((word, i) => {
    const token = tokens.length === words.length ? tokens[i] : null;
    word.startMs = token?.start_ms ?? startMs + ((endMs - startMs) * done) / total;
    done += word.text.length;
    word.endMs = token?.end_ms ?? startMs + ((endMs - startMs) * done) / total;
  });
  return words;
}
