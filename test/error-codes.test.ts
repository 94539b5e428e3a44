// docs/reference/error-codes.md lists every code that the engine and the droplet steps give a saga's error, and no other.

import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { PROTECTED_CODE } from '../src/inventory/protection.ts';

const root = fileURLToPath(new URL('../', import.meta.url));
const read = (path: string) => readFileSync(join(root, path), 'utf8');

/** Codes that are put together. A new one is to be added here, with the codes that it makes. */
const made: Readonly<Record<string, readonly string[]>> = {
  '`digitalocean_${error.kind}`': ['digitalocean_rejected', 'digitalocean_later', 'digitalocean_ambiguous'],
  '`${field}_unreadable`': ['<field>_unreadable'],
  '`${code}_unknown`': ['ssh_key_unknown', 'project_unknown'],
  '`${code}_ambiguous`': ['ssh_key_ambiguous', 'project_ambiguous'],
  PROTECTED_CODE: [PROTECTED_CODE],
};

/** Codes that are passed on, and types. */
const passedOn = /^(?:string|error\.code|failure\.code|hide\(|textOf\(|typeof code\b|'custom'|'invalid_union')/;

const files = [...['src/saga', 'src/steps'].flatMap((folder) => readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).map((name) => `${folder}/${name}`)), 'src/inventory/protection.ts', 'src/client/handle.ts'].filter((path) => path.endsWith('.ts'));

/** What stands for a code in a file: as a field of an object, or as the argument of what makes a failure. */
function expressionsIn(path: string): string[] {
  const code = read(path).replaceAll(/^\s*(?:\*|\/\/|\/\*\*).*$/gm, '');
  return [...code.matchAll(/\bcode: ((?:`[^`]*`|[^,;\n}])+)/g), ...code.matchAll(/\b(?:refusal|declined|terminal)\(('\w+'|`[^`]*`),/g)].map(([, expression = '']) => expression.trim());
}

function codesIn(path: string): string[] {
  return expressionsIn(path).flatMap((expression) => {
    if (passedOn.test(expression)) return [];
    const literals = [...expression.matchAll(/'(\w+)'/g)].map(([, literal = '']) => literal);
    const codes = made[expression] ?? literals;
    return codes.length > 0 ? codes : [`${path}: ${expression}`];
  });
}

const listed = [...read('docs/reference/error-codes.md').matchAll(/^\| (`[^|]+`) \|/gm)].flatMap(([, cell = '']) => [...cell.matchAll(/`([^`]+)`/g)].map(([, code = '']) => code)).filter((code) => /^[<a-z][\w>]+$/.test(code));

test('the page of error codes lists each code of the sources once, and no other', () => {
  // Of other errors: a call throws them.
  const ofCalls = ['droplet_being_destroyed', 'droplet_busy', 'key_in_progress', 'code'];
  const codes = new Set(files.flatMap(codesIn).filter((code) => !ofCalls.includes(code)));
  expect(codes.size).toBeGreaterThan(40);
  expect(listed.toSorted()).toEqual([...codes].toSorted());
});

test('a failure is made in no other way than those that this test reads', () => {
  const ways = /^(?:\s*\{|\s*refusal\(|\s*run\.effects\(|effect\.giveUp|thrown\.failure|failed\(error, true\)\.error)/;
  const others = files.flatMap((path) => [...read(path).matchAll(/new StepFailure\(([^]{0,60})/g)].filter(([, rest = '']) => !ways.test(rest)).map(([found]) => `${path}: ${found}`));
  expect(others).toEqual([]);
});
