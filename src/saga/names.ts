// Names of sagas, steps and effects: what they may be, and whether one stands twice.

// They stand in job names, routes, columns and keys of the context.
const namePattern = /^[a-z][a-z0-9_]{0,62}$/;

/** @param what whose name it is, in words for the error's beginning */
export function requireName(what: string, name: string): void {
  if (namePattern.test(name)) return;
  throw new TypeError(`${what}: expected a name of lower-case letters, digits and _, beginning with a letter, of at most 63 characters`);
}

/** The first name that stands twice; undefined where none does. */
export function nameTwice(named: readonly Readonly<{ name: string }>[]): string | undefined {
  const names = named.map(({ name }) => name);
  return names.find((name, index) => names.indexOf(name) !== index);
}
