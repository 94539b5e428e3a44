// The fields of the start form: converts the form to a saga's input, and maps problems of the input to fields.
import type { JsonObject } from '../../platform/json.ts';
import type { FieldProblem } from '../../platform/request-problems.ts';
import { parseDuration } from '../../platform/duration.ts';

/** What a form sent: each field once, several times, or not at all. */
export type Fields = Readonly<Record<string, string | readonly string[]>>;

/** What is wrong, by the field of the form; `form`: with none of them. */
export type FieldErrors = ReadonlyMap<string, string>;

const required = { name: 'Enter a name.', region: 'Choose a region.', size: 'Choose a size.', image: 'Choose an image.' } as const;

// The longest match wins. A field of the form may stand for several of the input.
const fieldOf: readonly (readonly [path: string, field: string])[] = [
  ['lease.max_s', 'lease_max'], ['lease', 'lease'], ['ready.within_s', 'ready_within'], ['ready.http.path', 'ready_path'], ['ready.http.port', 'ready_port'], ['ready.tcp', 'ready_port'], ['ready', 'ready'],
  ...['name', 'region', 'size', 'image', 'ssh_keys', 'tags', 'user_data', 'project'].map((name) => [name, name] as const),
];

/** The one value of a field; empty: none. */
export function valueOf(fields: Fields, name: string): string {
  const value = fields[name];
  return (typeof value === 'string' ? value : (value?.[0] ?? '')).trim();
}

/** Every value of a field; a text field has them separated by commas or lines. */
export function valuesOf(fields: Fields, name: string): string[] {
  const value = fields[name];
  return [value ?? []].flat().flatMap((one) => one.split(/[,\n]/)).map((one) => one.trim()).filter((one) => one !== '');
}

/** The user data. A browser sends its lines with CR LF, which a shell script does not survive. */
export function userDataOf(fields: Fields): string {
  const value = fields['user_data'];
  return (typeof value === 'string' ? value : '').replaceAll('\r\n', '\n');
}

/** The input that the form asks for, and what cannot be read in it. */
export function readFields(fields: Fields): { input: JsonObject; errors: Map<string, string> } {
  const errors = new Map<string, string>();
  for (const [name, message] of Object.entries(required)) if (valueOf(fields, name) === '') errors.set(name, message);
  const seconds = (name: string): number | undefined => {
    const text = valueOf(fields, name);
    if (text === '') return undefined;
    const read = parseDuration(text);
    if (read === null) errors.set(name, 'Enter a duration such as 30m, 2h or 7d.');
    return read ?? undefined;
  };
  const [ttl, max] = [seconds('lease'), seconds('lease_max')];
  if (max !== undefined && ttl === undefined && !errors.has('lease')) errors.set('lease', 'Enter a lease, because this is its limit.');
  const given = {
    name: valueOf(fields, 'name'),
    region: valueOf(fields, 'region'),
    size: valueOf(fields, 'size'),
    image: idOrText(valueOf(fields, 'image')),
    ssh_keys: orNone(valuesOf(fields, 'ssh_keys').map(idOrText)),
    tags: orNone(valuesOf(fields, 'tags')),
    user_data: userDataOf(fields) === '' ? undefined : userDataOf(fields),
    project: valueOf(fields, 'project') === '' ? undefined : valueOf(fields, 'project'),
    ...Object.fromEntries(['ipv6', 'monitoring', 'backups', 'protected'].map((name) => [name, valueOf(fields, name) === '' ? undefined : true])),
    lease: ttl === undefined ? undefined : { ttl_s: ttl, ...(max === undefined ? {} : { max_s: max }) },
    ready: readyOf(fields, seconds('ready_within'), errors),
  };
  return { input: Object.fromEntries(Object.entries(given).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]]))), errors };
}

/** Puts the problems of the input beside the fields that they come from. What is said of a field already stays. */
export function addProblems(errors: Map<string, string>, problems: readonly FieldProblem[]): void {
  for (const { field, message } of problems) {
    const name = fieldOf.find(([path]) => field === path || field.startsWith(`${path}.`))?.[1] ?? 'form';
    if (!errors.has(name)) errors.set(name, name === 'form' ? `${field}: ${message}` : sentenceOf(message));
  }
}

function readyOf(fields: Fields, within: number | undefined, errors: Map<string, string>): JsonObject | undefined {
  const how = valueOf(fields, 'ready');
  const more = within === undefined ? {} : { within_s: within };
  if (how === '') return undefined;
  if (how === 'callback') return { callback: true, ...more };
  const port = valueOf(fields, 'ready_port');
  if (!/^\d{1,5}$/.test(port)) errors.set('ready_port', 'Enter a port from 1 to 65535.');
  if (how === 'tcp') return { tcp: Number(port), ...more };
  const path = valueOf(fields, 'ready_path');
  return { http: { port: Number(port), ...(path === '' ? {} : { path }) }, ...more };
}

function orNone<T>(list: readonly T[]): T[] | undefined {
  return list.length === 0 ? undefined : [...list];
}

/** Images and SSH keys are given by slug, fingerprint or name, or by a number. */
function idOrText(value: string): string | number {
  return /^[1-9]\d{0,15}$/.test(value) ? Number(value) : value;
}

/** Messages of the schema are written for programs: "expected a host name". */
function sentenceOf(message: string): string {
  return `${message.charAt(0).toUpperCase()}${message.slice(1)}`.replace(/[^.!?]$/, '$&.');
}
