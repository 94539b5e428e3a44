// No secret in a log line, wherever it stands in what was logged.
import { execFile } from 'node:child_process';
import { promisify, stripVTControlCharacters } from 'node:util';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';

const run = promisify(execFile);

/** What a process logs that runs this with `log` at hand. */
async function logged(body: string, before = ''): Promise<string> {
  const program = `${before} import { createLog } from '${new URL('../../src/platform/create-log.ts', import.meta.url).href}'; const log = createLog('trace'); ${body}`;
  const { stdout } = await run(process.execPath, ['--input-type=module', '--eval', program]);
  return stdout;
}

test.each([
  ['at the top', `log.info({ token: 'CANARY' }, 'told')`],
  ['deep inside', `log.info({ a: { b: { c: { d: { user_data: 'CANARY' } } } } }, 'told')`],
  ['in a list', `log.info({ tries: [{ secret: 'CANARY' }] }, 'told')`],
  ['in what a child logger carries', `log.child({ password: 'CANARY' }).info('told')`],
  ['in the fields of an error', `log.info({ err: Object.assign(new Error('told'), { command: ['AUTH', 'CANARY'] }) })`],
  ['in the fields of an error under another name', `log.info({ reason: Object.assign(new Error('told'), { password: 'CANARY' }) })`],
  ['in an error logged by itself', `log.error(Object.assign(new Error('told'), { password: 'CANARY' }))`],
  ['deeper than anybody looks', `log.info({ a: ${'{ a: '.repeat(20)} { user_data: 'CANARY' } ${'}'.repeat(20)} }, 'told')`],
])('a secret %s is not in the line', async (_where, body) => {
  const line = await logged(body);
  expect(line).toContain('told');
  expect(line).not.toContain('CANARY');
});

test('what holds no secret is logged as it is, dates, lists and circles too', async () => {
  const line = await logged(`const circle = { n: 1 }; circle.self = circle; log.info({ at: new Date(0), list: [1, { two: 2 }], none: null, circle }, 'told')`);
  expect(JSON.parse(line)).toMatchObject({ at: '1970-01-01T00:00:00.000Z', list: [1, { two: 2 }], none: null, circle: { n: 1, self: { n: 1 } }, msg: 'told' });
});

describe('what a terminal would obey', () => {
  const hostile = `{ name: 'a\\u001b[2J\\u009b\\u202e\\nworker ready', err: new Error('b\\u001b[2J\\u202e') }, 'told\\u001b[2J\\u202e'`;

  test('stands in a line as JSON has it', async () => {
    const line = await logged(`log.info(${hostile})`);
    expect(line).toMatch(/^[ -~]*\n$/);
    expect(JSON.parse(line)).toMatchObject({ name: 'a\u001b[2J\u009b\u202e\nworker ready', msg: 'told\u001b[2J\u202e' });
  });

  test('is written out on a terminal', async () => {
    const text = await logged(`log.warn(${hostile})`, 'process.stdout.isTTY = true;');
    // The colours are pino-pretty's own.
    const plain = stripVTControlCharacters(text);
    expect(plain).toMatch(/^[ -~\n]*$/);
    expect(plain).toContain(String.raw`"a\x1b[2J\u009b\u202e\nworker ready"`.slice(1, -1));
    expect(plain).toContain(String.raw`told\x1b[2J\u202e`);
    expect(plain).not.toMatch(/^worker ready/m);
  });
});

describe('a line', () => {
  test('names its level', async () => {
    const lines = (await logged(`log.trace('a'); log.info('b'); log.child({ n: 1 }).warn('c'); log.fatal('d')`)).trim().split('\n');
    expect(lines.map((line): unknown => z.object({ level: z.unknown() }).parse(JSON.parse(line)).level)).toEqual(['trace', 'info', 'warn', 'fatal']);
  });

  test('carries the ids of the trace and the span that it belongs to, and none outside of a trace', async () => {
    const sdk = `import { trace } from '@opentelemetry/api'; import { NodeTracerProvider } from '@opentelemetry/sdk-trace-node'; new NodeTracerProvider().register();`;
    const body = `log.info('before'); trace.getTracer('test').startActiveSpan('work', (span) => { const { traceId, spanId } = span.spanContext(); log.child({}).info({ traceId, spanId }, 'within'); log.info('again'); span.end(); });`;
    const [before, within, again] = (await logged(body, sdk)).trim().split('\n').map((line) => z.looseObject({}).parse(JSON.parse(line)));
    expect(before).not.toHaveProperty('trace_id');
    expect(within).toMatchObject({ trace_id: expect.stringMatching(/^[0-9a-f]{32}$/), span_id: expect.stringMatching(/^[0-9a-f]{16}$/) });
    expect([within?.['trace_id'], within?.['span_id']]).toEqual([within?.['traceId'], within?.['spanId']]);
    expect(again).toMatchObject({ trace_id: within?.['traceId'], span_id: within?.['spanId'] });
  });
});
