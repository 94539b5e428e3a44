// Hides user data in the log that a droplet sends when it failed. A script that runs under `set -x` repeats itself there, with the
// passwords in it.

// Shorter texts are parts of ordinary words.
const MIN_LENGTH = 6;
const MIN_WORD_LENGTH = 8;

const BETWEEN_WORDS = /[\s'"`=:,;()[\]{}<>|&@/\\]+/;

/**
 * Replaces the lines of the user data, and what may be a secret in them, by where it stands: the value after a `=` or `:`, and words
 * with letters and digits. What a program made of a secret is not recognised.
 */
export function hideUserData(log: string, userData: string): string {
  const replaced = new Map<string, string>();
  for (const [index, given] of userData.split('\n').entries()) {
    const line = given.trim();
    const mark = `[line ${index + 1} of user_data]`;
    if (line.length >= MIN_LENGTH && !replaced.has(line)) replaced.set(line, mark);
    for (const part of secretsIn(line)) if (!replaced.has(part)) replaced.set(part, `[user_data]`);
  }
  // The longest first: a line before what stands in it.
  const parts = [...replaced.keys()].toSorted((one, other) => other.length - one.length);
  return parts.reduce((shown, part) => shown.replaceAll(part, replaced.get(part) ?? ''), log);
}

function secretsIn(line: string): string[] {
  const values = [...line.matchAll(/[=:]\s*(?:'([^']+)'|"([^"]+)"|([^\s'";]+))/g)].map(([, one, two, plain]) => one ?? two ?? plain ?? '');
  const words = line.split(BETWEEN_WORDS).filter((word) => word.length >= MIN_WORD_LENGTH && /\d/.test(word) && /[a-z]/i.test(word));
  return [...values.filter((value) => value.length >= MIN_LENGTH), ...words];
}
