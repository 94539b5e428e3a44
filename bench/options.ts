// The options of a benchmark's command line.
import { parseArgs } from 'node:util';

type Value = number | string | boolean;
type Common = { readonly small: boolean; readonly json: boolean };
type Read<T> = { readonly [Name in keyof T]: T[Name] extends number ? number : T[Name] extends boolean ? boolean : string };

/**
 * Reads the command line. An option takes the type of its default. `--small` replaces the defaults by small values, with which
 * the benchmark runs quickly and measures nothing. Every benchmark has `--json`.
 * @throws {Error} When an option is unknown, or not a number where one is expected.
 */
export function readOptions<const T extends Readonly<Record<string, Value>>>(defaults: T, small: { readonly [Name in keyof T]?: Read<T>[Name] }): Read<T> & Common {
  const flag = { type: 'boolean', default: false } as const;
  const known = Object.fromEntries(Object.entries(defaults).map(([name, value]) => [name, { type: typeof value === 'boolean' ? ('boolean' as const) : ('string' as const) }]));
  const { values } = parseArgs({ options: { ...known, small: flag, json: flag } });
  const chosen: Record<string, Value> = { ...defaults, ...(values.small ? small : {}), small: values.small, json: values.json };
  for (const [name, given] of Object.entries<string | boolean | undefined>(values)) {
    if (given !== undefined && name in defaults) chosen[name] = typeof defaults[name] === 'number' ? toNumber(name, String(given)) : given;
  }
  return chosen as Read<T> & Common; // oxlint-disable-line typescript/no-unsafe-type-assertion -- each value is of its default's kind
}

function toNumber(name: string, given: string): number {
  const number = Number(given);
  if (given.trim() === '' || Number.isNaN(number)) throw new Error(`--${name} takes a number, not "${given}"`);
  return number;
}
