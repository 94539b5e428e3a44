// Recognizes UUIDs and their beginnings.

const shape = 'xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx';

/** Whether a text has the form of a UUID, in either case. */
export function isUuid(text: string): boolean {
  return text.length === shape.length && isUuidPrefix(text);
}

/** Whether a text is the beginning of something in the form of a UUID, in either case. */
export function isUuidPrefix(text: string): boolean {
  return text.length <= shape.length && /^[0-9a-f-]*$/i.test(text) && Array.from(text).every((character, index) => (character === '-') === (shape[index] === '-'));
}

/** Returns the lowest and the highest UUID that begin with a text for which {@link isUuidPrefix} holds. */
export function uuidsWithPrefix(prefix: string): readonly [lowest: string, highest: string] {
  const rest = shape.slice(prefix.length);
  return [prefix + rest.replaceAll('x', '0'), prefix + rest.replaceAll('x', 'f')];
}
