// A droplet that reports itself (ready.callback): the URL in its user data, the token, and what becomes of a report.
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, onTestFinished, test } from 'vitest';
import { createReadyCallbacks, takeReport } from '../../src/inventory/ready-callbacks.ts';
import type { Report } from '../../src/inventory/ready-callbacks.ts';
import type { JsonObject } from '../../src/platform/json.ts';
import { makeToken, parseKeyRing } from '../../src/platform/key-ring.ts';
import { problemsOf, sentenceOf } from '../../src/platform/request-problems.ts';
import { visible } from '../../src/platform/text.ts';
import { provisionDropletInput } from '../../src/steps/inputs.ts';
import { withCallback } from '../../src/platform/cloud-init.ts';
import { waveTag } from '../../src/steps/ownership.ts';
import { callbackOfDroplet, planCreate } from '../../src/steps/ready-callback.ts';
import { makeSaga } from '../support/engine.ts';
import { encryptionKeys } from '../support/keys.ts';
import { waitFor } from '../support/wait-for.ts';
import { alive, at, posts, stepToDeath, useStepStage, web } from './stage.ts';
import type { Bench, BenchOptions } from './stage.ts';

const openBench = useStepStage();
const run = promisify(execFile);
const HOUR_MS = 3_600_000;
const patient = { pollIntervalMs: 20_000, maxPolls: 5, adoptionGraceMs: HOUR_MS };
const SCRIPT = '#!/bin/sh\necho canary-7d20 >/etc/motd\n';
const callback = { ready: { callback: true } } as const;
const ok: Report = { answer: 'ok', log: '' };

/** A bench with a saga that waits for its droplet's report, and the token of that. */
async function waitingSaga(input: JsonObject = {}, options: BenchOptions = {}) {
  const bench = await openBench({ settings: patient, ...options });
  const saga = await bench.provision({ ...callback, user_data: SCRIPT, ...input });
  const waiting = await bench.drive(saga.id, at('wait_droplet_ready'));
  const dropletId = Number(waiting.context['droplet_id']);
  return { bench, saga: waiting, dropletId, token: tokenOf(bench, dropletId) };
}

function tokenOf(bench: Bench, dropletId: number): string {
  const [, token = ''] = /https:\/\/arcadia\.example\.com\/base\/v1\/ready\/([\w.-]+)'/.exec(bench.sandbox.userData(dropletId) ?? '') ?? [];
  return token;
}

describe('a report', () => {
  test('that all is well ends the wait', async () => {
    const { bench, saga, token } = await waitingSaga();
    expect((await bench.step(saga.id)).note).toBe('last check: no report yet');
    expect(await takeReport(bench.db, token, ok)).toMatchObject({ kind: 'accepted' });
    expect((await bench.drive(saga.id)).status).toBe('completed');
  });

  test('of a failure rolls back, with the end of the log', async () => {
    const { bench, saga, dropletId, token } = await waitingSaga();
    await takeReport(bench.db, token, { answer: 'failed', log: 'E: Unable to locate package ngix\nfailed: apt-get install\n' });
    const after = await bench.drive(saga.id);
    expect(after).toMatchObject({ status: 'compensated', error: { code: 'droplet_not_ready', step: 'wait_droplet_ready' } });
    expect(after.error?.message).toBe(`droplet ${dropletId} is not ready: it reported that its user data failed. The end of its log: E: Unable to locate package ngix | failed: apt-get install`);
    expect(alive(bench.sandbox)).toEqual([]);
  });

  test('of a failure shows nothing of the user data, nor of the token, and its log is stored without them', async () => {
    const { bench, saga, token } = await waitingSaga({ user_data: '#!/bin/sh\nset -ex\nexport DB_PASSWORD=hunter2-very-secret\ncurl -H "x-key: k9canary-xyz" https://example.com/install\nfalse\n' });
    const log = `+ export DB_PASSWORD=hunter2-very-secret\n+ psql postgres://web:hunter2-very-secret@db\n+ curl -H 'x-key: k9canary-xyz' https://example.com/install\nE: no space left\ntoken ${token.split('.')[1]}\n`;
    await takeReport(bench.db, token, { answer: 'failed', log });
    const { error } = await bench.drive(saga.id);
    expect(error?.message).toContain('The end of its log: + [line 3 of user_data] | + psql postgres://web:[user_data]@db | + curl');
    expect(error?.message).toContain('E: no space left | token [callback]');
    const [stored] = await bench.db.sql<{ log: string }[]>`select log from arcadia.ready_callbacks where saga_id = ${saga.id}`;
    for (const text of [JSON.stringify(error), stored?.log ?? '']) expect(text).not.toMatch(/hunter2|k9canary/);
  });

  test('that never comes rolls back when the time is over', async () => {
    const { bench, saga, dropletId, token } = await waitingSaga({ ready: { callback: true, within_s: 60 } });
    await bench.step(saga.id);
    await bench.ageStep(saga.id, 60_000);
    const after = await bench.drive(saga.id);
    expect(after.error).toMatchObject({ code: 'droplet_not_ready', message: `droplet ${dropletId} is not ready: it did not report within 1 min 0 s that its user data ran` });
    expect(await takeReport(bench.db, token, ok)).toEqual({ kind: 'late' });
  });

  test('counts once: a second one, another or the same, changes nothing', async () => {
    const { bench, saga, token } = await waitingSaga();
    const [one, other] = await Promise.all([takeReport(bench.db, token, ok), takeReport(bench.db, token, ok)]);
    expect([one.kind, other.kind].toSorted()).toEqual(['accepted', 'used']);
    expect(await takeReport(bench.db, token, { answer: 'failed', log: 'too late' })).toEqual({ kind: 'used' });
    expect((await bench.drive(saga.id)).status).toBe('completed');
    expect(await takeReport(bench.db, token, ok)).toEqual({ kind: 'used' });
  });

  test('may come before DigitalOcean says that the droplet is active', async () => {
    const bench = await openBench({ settings: patient, activateAfterMs: HOUR_MS });
    const saga = await bench.provision({ ...callback, user_data: SCRIPT });
    const waiting = await bench.drive(saga.id, at('wait_droplet_active'));
    await takeReport(bench.db, tokenOf(bench, Number(waiting.context['droplet_id'])), ok);
    bench.sandbox.advanceClock(HOUR_MS);
    expect((await bench.drive(saga.id)).status).toBe('completed');
  });

  test('for a cancelled saga comes too late', async () => {
    const { bench, saga, token } = await waitingSaga();
    await bench.cancel(saga.id);
    expect(await takeReport(bench.db, token, ok)).toEqual({ kind: 'late' });
    expect(await bench.drive(saga.id)).toMatchObject({ status: 'compensated', error: { code: 'cancelled' } });
  });

  test('with a guessed token is none', async () => {
    const { bench, saga, token } = await waitingSaga();
    const guess = randomBytes(32).toString('base64url');
    const other = (await bench.provision()).id;
    for (const wrong of ['', 'x', guess, `${saga.id}.${guess}`, `${other}.${guess}`, `${other}.${token.split('.')[1]}`, `${token}x`, token.slice(0, -1), token.toUpperCase()]) {
      expect(await takeReport(bench.db, wrong, ok)).toEqual({ kind: 'unknown' });
    }
  });

  test('with a log that is long, hostile, and repeats the URL: its end is kept, and the token is not', async () => {
    const { bench, saga, token } = await waitingSaga();
    const log = `${'x'.repeat(60_000)}\n\u0000\u001b[31m\ud800 + curl https://arcadia.example.com/base/v1/ready/${token}\nthe last line`;
    await takeReport(bench.db, token, { answer: 'failed', log });
    const { error } = await bench.drive(saga.id);
    expect(error?.message.length).toBeLessThanOrEqual(2_000);
    expect(error?.message).toMatch(/\| the last line$/);
    expect(error?.message).not.toContain(token.split('.')[1]);
    expect(visible(error?.message ?? '')).toContain('\\x1b[31m');
  });
});

const numberIn = (context: JsonObject) => callbackOfDroplet({ context });

/** A saga whose first creates got no answer, and whose lists lag: it has two droplets, the older one first. */
async function withTwoDroplets({ lost }: { lost: number }) {
  const bench = await openBench({ settings: { ...patient, adoptionGraceMs: 1 } });
  bench.sandbox.setFaults({ listLagMs: HOUR_MS, rules: [{ match: { method: 'POST' }, times: lost, effect: { lostAnswer: true } }] });
  const saga = await bench.provision({ ...callback, user_data: SCRIPT });
  for (let steps = 0; posts(bench.sandbox) < 2 && steps < 20; steps += 1) await bench.step(saga.id);
  bench.sandbox.setFaults({ listLagMs: 0 });
  const { context } = await bench.drive(saga.id, at('wait_droplet_ready'));
  const ids = bench.sandbox.state().map(({ id }) => id).toSorted((a, b) => a - b);
  const kept = Number(context['droplet_id']);
  const [other = 0] = ids.filter((id) => id !== kept);
  return { bench, saga, ids, kept, other, context };
}

describe('of two droplets, the report of the one that is kept decides', () => {
  test.each([
    ['the second, whose create was answered', 1, 1],
    ['the first, which was adopted', 2, 0],
  ] as const)('%s', async (_which, lost, place) => {
    for (const [answer, status] of [['ok', 'completed'], ['failed', 'compensated']] as const) {
      const { bench, saga, ids, kept, other, context } = await withTwoDroplets({ lost });
      expect([ids.length, kept]).toEqual([2, ids[place]]);
      expect(context['droplet_origin']).toBe(lost === 1 ? 'created' : 'adopted');
      expect(await takeReport(bench.db, tokenOf(bench, other), { answer: answer === 'ok' ? 'failed' : 'ok', log: '' })).toMatchObject({ kind: 'accepted' });
      expect((await bench.step(saga.id)).note).toBe('last check: no report yet');
      expect(await takeReport(bench.db, tokenOf(bench, kept), { answer, log: '' })).toMatchObject({ kind: 'accepted' });
      expect(await takeReport(bench.db, tokenOf(bench, kept), ok)).toEqual({ kind: 'used' });
      expect((await bench.drive(saga.id)).status).toBe(status);
    }
  });

  test('none does if its wave tag is gone: the saga says so', async () => {
    const { bench, saga, ids } = await withTwoDroplets({ lost: 2 });
    await bench.db.sql`update arcadia.sagas set context = context || '{"droplet_wave": null}' where id = ${saga.id}`;
    for (const id of ids) await takeReport(bench.db, tokenOf(bench, id), ok);
    expect((await bench.step(saga.id)).note).toBe('last check: several creates were sent, and the droplet has no wave tag that names its own');
  });

  test('an older version announced no wave, and knows one token for all its creates', () => {
    expect(numberIn({ droplet_wave: 'arcadia-wave-1' })).toBe(0);
    expect(numberIn({})).toBe(0);
    // The first create was an older version's.
    expect(numberIn({ create_waves: ['', 'arcadia-wave-2'], droplet_wave: 'arcadia-wave-1' })).toBe(0);
    expect(numberIn({ create_waves: ['', 'arcadia-wave-2'], droplet_wave: 'Arcadia-Wave-2' })).toBe(1);
    expect(numberIn({ create_waves: ['arcadia-wave-1', 'arcadia-wave-2'], droplet_wave: null })).toBeNull();
  });

  test('creates of the same half minute have different waves, and a refused one leaves its number to the next', () => {
    const now = new Date('2026-12-11T10:00:00Z');
    const plan = (context: JsonObject) => planCreate({ saga: makeSaga({ input: { ...web, ...callback }, context }), now });
    const first = plan({});
    expect(first).toEqual({ wave: waveTag(now), number: 0, announces: { create_waves: [waveTag(now)] } });
    const second = plan({ ...first.announces, create_intents: 1 });
    expect(second).toEqual({ wave: waveTag(now, 1), number: 1, announces: { create_waves: [first.wave, waveTag(now, 1)] } });
    expect(plan({ ...second.announces, create_intents: 2, create_refusals: 1 })).toEqual(second);
    expect(plan({ create_intents: 1 })).toEqual({ wave: waveTag(now), number: 1, announces: { create_waves: ['', waveTag(now)] } });
  });
});

describe('the token', () => {
  test('is in the user data alone: not in the row, the events, a job, the input, and as a hash in its table', async () => {
    const { bench, saga, token } = await waitingSaga();
    await takeReport(bench.db, token, ok);
    await bench.drive(saga.id);
    const [, secret = 'none'] = token.split('.');
    const rows = await bench.db.sql`
      select (select jsonb_agg(to_jsonb(s)) from arcadia.sagas s) as sagas, (select jsonb_agg(to_jsonb(e)) from arcadia.saga_events e) as events,
        (select jsonb_agg(to_jsonb(c)) from arcadia.ready_callbacks c) as callbacks, (select jsonb_agg(to_jsonb(a)) from arcadia.audit a) as audit`;
    expect(JSON.stringify(rows)).toContain(saga.id);
    expect(JSON.stringify(rows)).not.toContain(secret);
    expect(JSON.stringify(rows)).not.toContain(Buffer.from(secret, 'base64url').toString('hex'));
  });

  test('is the same for a create that is prepared again, also after a new key came', async () => {
    const bench = await openBench({ settings: patient });
    const saga = await bench.provision({ ...callback });
    const prepared = await createReadyCallbacks(bench.db, parseKeyRing(encryptionKeys)).issue(saga.id, 0);
    await bench.step(saga.id, { keyRing: parseKeyRing(`${randomBytes(32).toString('base64')},${encryptionKeys}`) });
    const token = tokenOf(bench, Number((await bench.saga(saga.id)).context['droplet_id']));
    expect(token).toBe(prepared);
    expect(token).toHaveLength(80);
    expect(await takeReport(bench.db, token, ok)).toMatchObject({ kind: 'accepted' });
  });

  test('is another one for a create after one without an answer', async () => {
    const bench = await openBench({ settings: patient });
    const saga = await bench.provision({ ...callback });
    await stepToDeath(bench, saga.id, 'http POST /v2/droplets', 'before');
    await bench.ageCreate(saga.id, 2 * HOUR_MS);
    await bench.step(saga.id);
    const token = tokenOf(bench, Number((await bench.saga(saga.id)).context['droplet_id']));
    const ring = parseKeyRing(encryptionKeys);
    expect(token).toBe(`${saga.id}.${makeToken(ring, `ready ${saga.id} 1`, null).token}`);
    expect(token).not.toBe(await createReadyCallbacks(bench.db, ring).issue(saga.id, 0));
    expect(await takeReport(bench.db, token, ok)).toMatchObject({ kind: 'accepted' });
  });

  test('waits for its key where that was taken out of the ring', async () => {
    const bench = await openBench({ settings: patient });
    const saga = await bench.provision({ ...callback });
    await createReadyCallbacks(bench.db, parseKeyRing(encryptionKeys)).issue(saga.id, 0);
    const verdict = await bench.step(saga.id, { keyRing: parseKeyRing(randomBytes(32).toString('base64')) });
    expect(verdict.note).toContain('Add the key to every worker');
    expect(posts(bench.sandbox)).toBe(0);
    expect((await bench.drive(saga.id, at('wait_droplet_active'))).context['droplet_id']).toBeTypeOf('number');
  });

  test("is in no error of DigitalOcean's that repeats the user data", async () => {
    const bench = await openBench({ settings: patient });
    const saga = await bench.provision({ ...callback });
    await stepToDeath(bench, saga.id, 'http POST /v2/droplets', 'before');
    // A sandbox cannot know it: the test makes it as the worker does.
    const { token } = makeToken(parseKeyRing(encryptionKeys), `ready ${saga.id} 1`, null);
    bench.sandbox.setFaults({ rules: [{ match: { method: 'POST' }, effect: { status: 422, body: { id: 'unprocessable_entity', message: `cannot boot ${saga.id}.${token}` } } }] });
    await bench.ageCreate(saga.id, 2 * HOUR_MS);
    const failed = await bench.drive(saga.id, ({ status }) => status === 'compensating');
    expect(failed.error?.code).toBe('digitalocean_rejected');
    expect(JSON.stringify([failed, await bench.events(saga.id)])).not.toContain(token);
  });
});

describe('without', () => {
  test('an address of the web, nothing is created, and the saga says what to set', async () => {
    const bench = await openBench({ readiness: { publicUrl: null } });
    const saga = await bench.provision({ ...callback });
    expect(await bench.drive(saga.id)).toMatchObject({ status: 'compensated', error: { code: 'ready_callback_unavailable', message: expect.stringContaining('PUBLIC_URL') } });
    expect(posts(bench.sandbox)).toBe(0);
  });

  test('a key, nothing is created, and the saga says what to set', async () => {
    const bench = await openBench({ readiness: { canIssue: false } });
    const saga = await bench.provision({ ...callback });
    expect(await bench.drive(saga.id)).toMatchObject({ status: 'compensated', error: { code: 'ready_callback_unavailable', message: expect.stringContaining('ARCADIA_ENCRYPTION_KEYS') } });
    expect(posts(bench.sandbox)).toBe(0);
  });
});

/** Programs that get an answer with this status, and end as curl and wget do. */
const clients = {
  curl: (status: number) => `printf '${status}'; exit 0`,
  wget: (status: number) => `printf '  HTTP/1.1 ${status} Whatever\\n  Content-Length: 410\\n' >&2; exit ${status < 300 ? 0 : 8}`,
};

/** As Python's email package reads it, which is what cloud-init uses. */
async function parts(userData: string): Promise<{ type: string; text: string }[]> {
  const program = [
    'import email, json, sys',
    'message = email.message_from_string(sys.stdin.buffer.read().decode())',
    "print(json.dumps([{'type': p.get_content_type(), 'text': p.get_payload(decode=True).decode(p.get_content_charset())} for p in message.walk() if not p.is_multipart()]))",
  ].join('\n');
  const child = run('python3', ['-c', program]);
  child.child.stdin?.end(userData);
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- printed above
  return JSON.parse((await child).stdout) as { type: string; text: string }[];
}

describe('the user data', () => {
  const REPORT_URL = 'https://arcadia.example.com/v1/ready/token';
  test.each([
    ['a script', SCRIPT, 'text/x-shellscript'],
    ['a cloud-config', '#cloud-config\npackages: [nginx]\n', 'text/cloud-config'],
    ['a cloud-config with other characters, and lines that look like a boundary', '#cloud-config\n# größer 世界 😀\n--==arcadia-cloud-4f0c9b52d1==--\n', 'text/cloud-config'],
    ['a script with CRLF and no line break at its end', '#!/bin/bash\r\necho hi', 'text/x-shellscript'],
  ])('%s stays as it is, with our script after it', async (_what, own, type) => {
    const read = await parts(withCallback(own, REPORT_URL));
    expect(read[0]).toEqual({ type, text: own });
    expect(read[1]).toEqual({ type: 'text/x-shellscript', text: expect.stringContaining(`url='${REPORT_URL}'`) });
    expect(read).toHaveLength(2);
  });

  test('none: the script alone', () => {
    expect(withCallback(null, REPORT_URL)).toMatch(/^#!\/bin\/sh\n/);
  });

  test.each<[string, JsonObject, string | null]>([
    ['a script', { user_data: SCRIPT }, null],
    ['a cloud-config', { user_data: '#cloud-config\nruncmd: []' }, null],
    ['none', {}, null],
    ['an empty one', { user_data: '' }, null],
    ['a MIME message', { user_data: 'Content-Type: multipart/mixed; boundary="x"\nMIME-Version: 1.0\n' }, 'user_data: expected a cloud-config'],
    ['an include file', { user_data: '#include\nhttps://example.com/x' }, 'user_data: expected a cloud-config'],
    ['a template', { user_data: '## template: jinja\n#cloud-config\n' }, 'user_data: expected a cloud-config'],
    ['an archive', { user_data: '#cloud-config-archive\n- x' }, 'user_data: expected a cloud-config'],
    ['base64', { user_data: Buffer.from(SCRIPT).toString('base64') }, 'user_data: expected a cloud-config'],
    ['a script that fits without the callback only', { user_data: `#!/bin/sh\n${'#'.repeat(64 * 1024 - 20)}` }, 'user_data: expected at most 64 KiB with what ready.callback adds'],
    ['the same, without callback', { ready: { tcp: 22 }, user_data: `#!/bin/sh\n${'#'.repeat(64 * 1024 - 20)}` }, null],
    ['a MIME message, without callback', { ready: { tcp: 22 }, user_data: 'Content-Type: multipart/mixed' }, null],
  ])('%s: taken, or refused at the border', (_what, more, problem) => {
    const { error } = provisionDropletInput.safeParse({ ...web, ...callback, ...more });
    expect([error === undefined, sentenceOf(problemsOf(error?.issues ?? [])).startsWith(problem ?? '')]).toEqual([problem === null, true]);
  });

  test.each([
    ['0', 'ok\n'],
    ['2', 'ok\n'],
    ['1', 'failed\n'],
  ])('our script reports what cloud-init says: %s', async (status, expected) => {
    const folder = await mkdtemp(join(tmpdir(), 'arcadia-ready-'));
    onTestFinished(() => rm(folder, { recursive: true, force: true }));
    const file = (name: string) => join(folder, name);
    await writeFile(file('part'), withCallback(null, REPORT_URL));
    await writeFile(file('cloud-init'), `#!/bin/sh\necho "$@" >"${file('asked')}"\nexit ${status}\n`, { mode: 0o755 });
    // The body is the argument that begins with @.
    await writeFile(file('curl'), `#!/bin/sh\nfor one in "$@"; do case "$one" in @*) cp "\${one#@}" "${file('body')}" ;; esac; last=$one; done\necho "$last" >"${file('url')}"\nprintf 200\n`, { mode: 0o755 });
    await run('sh', [file('part')], { env: { PATH: `${folder}:${process.env['PATH'] ?? ''}` } });
    const url = await waitFor(async () => readFile(file('url'), 'utf8').catch(() => false as const), { what: 'the report' });
    expect([url, await readFile(file('asked'), 'utf8')]).toEqual([`${REPORT_URL}\n`, 'status --wait\n']);
    expect(await readFile(file('body'), 'utf8')).toBe(expected);
  });

  test.each([
    ['curl', 429, 200],
    ['curl', 404, 200],
    ['curl', 408, 204],
    ['curl', 502, 410],
    ['wget', 429, 200],
    ['wget', 404, 410],
    ['wget', 502, 410],
  ] as const)('our script, by %s, tries again after a %i, and ends with a %i', async (client, first, last) => {
    const folder = await mkdtemp(join(tmpdir(), 'arcadia-ready-'));
    onTestFinished(() => rm(folder, { recursive: true, force: true }));
    const file = (name: string) => join(folder, name);
    await writeFile(file('part'), withCallback(null, REPORT_URL));
    const program = async (name: string, text: string) => writeFile(file(name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
    await Promise.all([program('cloud-init', 'exit 0'), program('sleep', 'exit 0')]);
    await program(client, `echo x >>'${file('tries')}'\nif [ "$(wc -l <'${file('tries')}')" = 1 ]; then ${clients[client](first)}; else ${clients[client](last)}; fi`);
    // No other client than this one.
    await Promise.all(['cat', 'mktemp', 'nohup', 'rm', 'sh', 'tail', 'wc'].map(async (tool) => program(tool, `PATH=/usr/bin:/bin exec ${tool} "$@"`)));
    await run('/bin/sh', [file('part'), 'report'], { env: { PATH: folder } });
    expect(await readFile(file('tries'), 'utf8')).toBe('x\nx\n');
  });
});
