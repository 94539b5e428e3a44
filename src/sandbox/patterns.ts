// The pattern language by which faults select names, tags and paths.

/** Whether `text` is a valid pattern. Only an empty pattern, or one starting with `^`, can be invalid. */
export function isPattern(text: string): boolean {
  try {
    compile(text);
    return text.length > 0;
  } catch {
    return false;
  }
}

/** Matches a name or a tag. `^…` is a regular expression. Anything else matches exactly, except that `*` matches any text. */
export function matchesName(pattern: string, text: string): boolean {
  return compile(pattern).test(text);
}

/** Matches a path without its query. `^…` is a regular expression. Anything else is a prefix. */
export function matchesPath(pattern: string, path: string): boolean {
  return pattern.startsWith('^') ? compile(pattern).test(path) : path.startsWith(pattern);
}

function compile(pattern: string): RegExp {
  if (pattern.startsWith('^')) return new RegExp(pattern, 'u');
  const literals = pattern.split('*').map((part) => part.replaceAll(/[\\^$.+?()[\]{}|]/gu, String.raw`\$&`));
  return new RegExp(`^${literals.join('.*')}$`, 'u');
}
