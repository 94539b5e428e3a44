// Limits the depth and size of a request before anything interprets it. Later recursion (a schema, JSON.stringify) must
// not overflow the stack.

const MAX_DEPTH = 32;
const MAX_PARTS = 20_000;
// Enough for 64 KiB of user data and much else.
const MAX_CHARACTERS = 512 * 1024;

/** Describes how a value exceeds the limits; null if it does not. Stops at the limits. */
export function excessOf(value: unknown): string | null {
  // An explicit stack instead of recursion: the value may be as deep as it is large.
  const left: { value: unknown; depth: number }[] = [{ value, depth: 1 }];
  let parts = 0;
  let characters = 0;
  for (let next = left.pop(); next !== undefined; next = left.pop()) {
    if (typeof next.value === 'string') characters += next.value.length;
    if (characters > MAX_CHARACTERS) return `expected at most ${MAX_CHARACTERS / 1024} KiB`;
    if (typeof next.value !== 'object' || next.value === null) continue;
    const { depth } = next;
    if (depth > MAX_DEPTH) return `expected at most ${MAX_DEPTH} levels of nesting`;
    const keys = Array.isArray(next.value) ? [] : Object.keys(next.value);
    const entries: unknown[] = Array.isArray(next.value) ? next.value : Object.values(next.value);
    parts += entries.length;
    if (parts > MAX_PARTS) return `expected at most ${MAX_PARTS} fields and entries`;
    for (const key of keys) characters += key.length;
    for (const entry of entries) left.push({ value: entry, depth: depth + 1 });
  }
  return characters > MAX_CHARACTERS ? `expected at most ${MAX_CHARACTERS / 1024} KiB` : null;
}
