// Tables on terminals of any width: what is cut, what is left out, and what never is.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import * as fc from 'fast-check';
import stringWidth from 'string-width';
import { describe, expect, test } from 'vitest';
import { terminalWidth } from '../../src/cli/output.ts';
import { formatSagas } from '../../src/cli/saga-text.ts';
import type { Column } from '../../src/cli/table.ts';
import { formatTable } from '../../src/cli/table.ts';
import { catalog } from '../../src/steps/catalog.ts';
import { surfaceOf } from '../../src/saga/words.ts';
import type { Saga } from '../../src/saga/saga.ts';

const columns: readonly Column[] = ['id', { name: 'name', rank: 1, least: 5 }, { name: 'created', rank: 2, least: 8 }];
const rows = [['4711', 'web-server-in-fra1', '12:00:01'], ['12', '東京のサーバー', '12:00:02']];
const table = (maxWidth: number | null) => formatTable(columns, rows, maxWidth);

test('without a terminal nothing is cut, and columns are aligned by what is seen', () => {
  expect(table(null)).toBe(['id    name                created', '4711  web-server-in-fra1  12:00:01', '12    東京のサーバー      12:00:02'].join('\n'));
});

test('a long cell in a pipe is whole, and makes no other row long', () => {
  const [, long = '', short = ''] = formatTable(columns, [['1', 'x'.repeat(1_000), 'a'], ['2', 'y', 'b']], null).split('\n');
  expect(long).toContain('x'.repeat(1_000));
  expect(short.length).toBeLessThan(300);
});

test('the most useful column keeps the most, and an ellipsis tells what is cut', () => {
  expect(table(30)).toBe(['id    name            created', '4711  web-server-in…  12:00:01', '12    東京のサーバー  12:00:02'].join('\n'));
});

test('what has no room at its narrowest is left out, and the heads say so', () => {
  expect(table(20)).toBe(['id    name         …', '4711  web-server…', '12    東京のサー…'].join('\n'));
});

test('an id is whole even where nothing else has room', () => {
  expect(table(2).split('\n')).toEqual(['id    …', '4711', '12']);
});

test('no line is wider than the terminal, and every id is whole', () => {
  const text = fc.string({ unit: 'grapheme', maxLength: 40 });
  const someRows = fc.array(fc.tuple(fc.uuid(), text, text, text), { maxLength: 5 });
  fc.assert(
    fc.property(someRows, fc.integer({ min: 39, max: 160 }), (given, maxWidth) => {
      const lines = formatTable(['id', { name: 'one', rank: 2, least: 6 }, { name: 'two', rank: 1, least: 4 }, { name: 'three', rank: 3, least: 1 }], given, maxWidth).split('\n');
      expect(lines).toHaveLength(given.length + 1);
      for (const line of lines) expect(stringWidth(line)).toBeLessThanOrEqual(maxWidth);
      expect(lines.slice(1).map((line) => line.slice(0, 36))).toEqual(given.map(([id]) => id));
    }),
  );
});

describe('the list of sagas', () => {
  const at = new Date();
  const saga: Saga = {
    id: 'b7c9f6e0-1f5a-4a53-9d4e-1d9f64c1a001', saga8: 'b7c9f6e0', name: 'provision_droplet', status: 'stuck', steps: ['create_droplet'], cursor: 0, revision: 9, attempt: 1,
    input: { name: `web-${'1'.repeat(59)}` }, context: { droplet_id: 512340001 }, error: { code: 'x', message: 'm'.repeat(500), step: 'create_droplet', retryable: false }, idempotencyKey: null, requestedBy: null, startedBy: null, priority: 'normal',
    traceparent: null, resource: null, waitsFor: null, rerunOf: null, rerunAs: null, cancelRequestedAt: null, stepStartedAt: at, createdAt: at, updatedAt: at, finishedAt: null,
  };
  const list = (maxWidth: number | null) => formatSagas([saga], surfaceOf(catalog), { leases: new Map(), holds: new Map(), lastAnswers: new Map(), now: new Date(), maxWidth });

  test('fits 80 columns with the id, the status, the name and what it does', () => {
    const lines = list(80).split('\n');
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(80);
    expect(lines[1]).toMatch(new RegExp(`^${saga.id}  provisio…  needs attention  web-1+…$`));
    expect(lines[0]).toMatch(/^id +saga +status +name +…$/);
  });

  test.each(Array.from({ length: 80 }, (_, index) => 60 + index))('has the id of the droplet whole or not at all in %i columns', (maxWidth) => {
    const [, line = ''] = list(maxWidth).split('\n');
    expect(line).not.toMatch(/ 51\S*…/);
    expect(/ 512340001(?: |$)/.test(line)).toBe(list(maxWidth).split('\n')[0]?.includes('about'));
  });

  test('has the whole error in a pipe', () => {
    expect(list(null)).toContain('m'.repeat(500));
  });
});

describe('the width of the terminal', () => {
  test.each([
    ['what the terminal says', { isTTY: true, columns: 80 }, {}, 80],
    ['COLUMNS, where it is set', { isTTY: true, columns: 80 }, { COLUMNS: '40' }, 40],
    ['what the terminal says, where COLUMNS is no width', { isTTY: true, columns: 80 }, { COLUMNS: 'wide' }, 80],
    ['unknown in a pipe, whatever COLUMNS says', { isTTY: false, columns: 80 }, { COLUMNS: '40' }, null],
    ['unknown where the terminal has no size', { isTTY: true, columns: 0 }, {}, null],
  ])('is %s', (_what, stdout, environment, expected) => {
    expect(terminalWidth(stdout, environment)).toBe(expected);
  });
});

test('plain text is measured as string-width does', () => {
  const plain = fc.string({ unit: fc.mapToConstant({ num: 0x5f, build: (offset) => String.fromCodePoint(0x20 + offset) }, { num: 1, build: () => '…' }, { num: 1, build: () => '–' }), maxLength: 40 });
  fc.assert(fc.property(plain, (cell) => {
    expect(formatTable(['a', 'b'], [[cell, 'x']], null).split('\n')[1]).toBe(`${cell}${' '.repeat(Math.max(1, stringWidth(cell)) - stringWidth(cell))}  x`);
  }));
});

// Its expression for all emoji takes 50 ms of CPU time of a command that shows none.
test.each([
  ['is not loaded for', [['4711', 'a-name-that-is-cut', '–']], []],
  ['is loaded once for', [['4711', 'Zürich', '–'], ['4712', '東京', '–']], ['string-width']],
])('string-width %s %j', async (_what, cells, loaded) => {
  const program = `
    import { registerHooks } from 'node:module';
    const seen = [];
    registerHooks({ resolve: (name, context, next) => (name === 'string-width' && seen.push(name), next(name, context)) });
    const { formatTable } = await import(${JSON.stringify(new URL('../../src/cli/table.ts', import.meta.url).href)});
    formatTable(['id', { name: 'name', rank: 1, least: 5 }, 'error'], ${JSON.stringify(cells)}, 20);
    console.log(JSON.stringify(seen));`;
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', program]);
  expect(JSON.parse(stdout)).toEqual(loaded);
});
