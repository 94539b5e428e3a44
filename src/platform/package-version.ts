// The version of this package, from package.json.
import { readFileSync } from 'node:fs';
import { z } from 'zod';

/** Reads the version. package.json is two directories above this module, in a checkout and in the installed package. */
export function packageVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return z.object({ version: z.string() }).parse(JSON.parse(text)).version;
}
