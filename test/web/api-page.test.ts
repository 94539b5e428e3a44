// The page of the HTTP API: an index, examples, and code samples that run as they are printed.

import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { samplesOf } from '../../src/web/pages/code-samples.ts';
import { bearer, credentials, openWebStage, secrets } from './stage.ts';
import type { Web } from './stage.ts';

const run = promisify(execFile);
const media = z.record(z.string(), z.looseObject({ schema: z.unknown(), example: z.unknown().optional() }));
const operationSchema = z.looseObject({
  operationId: z.string(),
  parameters: z.array(z.looseObject({ in: z.string(), example: z.unknown().optional() })).default([]),
  requestBody: z.looseObject({ content: media }).optional(),
  responses: z.record(z.string(), z.looseObject({ content: media.optional() })),
});
const documentSchema = z.looseObject({ paths: z.record(z.string(), z.record(z.string(), operationSchema)) });

let web: Web;
let folder = '';
let page = '';
let operations: z.infer<typeof operationSchema>[] = [];
beforeAll(async () => {
  web = await openWebStage(credentials);
  folder = await mkdtemp(join(tmpdir(), 'arcadia-samples-'));
  page = (await web.call('GET', '/docs', { headers: bearer(secrets.all) })).text;
  const document = documentSchema.parse((await web.call('GET', '/openapi.json', { headers: bearer(secrets.all) })).json());
  operations = Object.values(document.paths).flatMap((item) => Object.values(item));
});
afterAll(async () => {
  await web[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

const textOf = (html: string) => html.replaceAll('&quot;', '"').replaceAll('&#39;', "'").replaceAll('&lt;', '<').replaceAll('&gt;', '>').replaceAll('&amp;', '&');
/** The sample of an operation, as the page shows it. */
const sampleOf = (id: string, language: string): string => {
  const section = page.slice(page.indexOf(`<section class="operation" id="${id}">`)).split('</section>', 1)[0] ?? '';
  return textOf(new RegExp(`data-language="${language}">([\\s\\S]*?)</pre>`).exec(section)?.[1] ?? '');
};
/** Runs a sample as its language does; gives what it prints as JSON. */
const play = async (language: string, code: string): Promise<unknown> => {
  const file = join(folder, language === 'TypeScript' ? `${crypto.randomUUID()}.mts` : crypto.randomUUID());
  const printing = language === 'TypeScript' ? code.replace('console.log(await response.json())', 'console.log(JSON.stringify(await response.json()))') : code.replace('print(json.load(response))', 'print(json.dumps(json.load(response)))');
  await writeFile(file, printing);
  const program = { curl: '/bin/sh', TypeScript: process.execPath, Python: 'python3' }[language] ?? '';
  const { stdout } = await run(program, [file], { env: { ...process.env, ARCADIA_TOKEN: secrets.all } });
  return JSON.parse(stdout);
};
const languages = ['curl', 'TypeScript', 'Python'] as const;

test('lists every operation in an index, with samples in three languages', () => {
  expect(operations.length).toBeGreaterThan(20);
  for (const { operationId } of operations) {
    expect([operationId, page.split(`<a href="#${operationId}">`).length - 1]).toEqual([operationId, 2]);
    for (const language of languages) expect([operationId, sampleOf(operationId, language).length > 30]).toEqual([operationId, true]);
  }
  // Nothing is left to fill in.
  expect(page.match(/127\.0\.0\.1:\d+[^\s<&]*\{/)).toBeNull();
});

test('has an example for each body, each JSON answer and each parameter of a path', () => {
  for (const { operationId, requestBody, responses, parameters } of operations) {
    const bodies = [requestBody?.content ?? {}, ...Object.values(responses).map(({ content = {} }) => content)].flatMap((content) => Object.entries(content)).filter(([type]) => type.endsWith('json'));
    for (const [type, { example }] of bodies) expect([operationId, type, example]).not.toEqual([operationId, type, undefined]);
    expect([operationId, parameters.filter(({ in: place, example }) => place === 'path' && example === undefined)]).toEqual([operationId, []]);
  }
});

describe.each(languages)('the samples in %s', (language) => {
  test('run as they are printed', async () => {
    const planned = z.object({ possible: z.string() }).parse(await play(language, sampleOf('planProvision', language)));
    expect(planned.possible).toBe('unknown');
    const started = z.object({ sagaId: z.uuid() }).parse(await play(language, sampleOf('start_provision_droplet', language)));
    const [saga] = await web.db.sql`select name, input, idempotency_key from arcadia.sagas where id = ${started.sagaId}`;
    expect(saga).toMatchObject({ name: 'provision_droplet', input: { name: 'web-1', region: 'fra1' }, idempotencyKey: 'order-4711' });
    expect(await play(language, sampleOf('listSagas', language))).toMatchObject({ sagas: [{ id: started.sagaId }] });
    expect(await play(language, sampleOf('bulkCancel', language))).toMatchObject({ dryRun: true });
  });

  test('keep quotes, line breaks and dollar signs of a body', async () => {
    const name = `it's "quoted" $HOME \`id\` \\ \n umlaut: ü \${x}`;
    const [sample] = samplesOf({ method: 'POST', url: `${web.url}/v1/sagas/provision_droplet`, headers: {}, body: { name, list: [true, null, { nested: false }], empty: {} }, isPublic: false, isStream: false }).filter((one) => one.language === language);
    const code = (sample?.code ?? '').replace('curl', 'curl -sS').replace('if (!response.ok) throw new Error(await response.text());\n', '').replace('with urllib.request.urlopen(request) as response:', 'import urllib.error\ntry: response = urllib.request.urlopen(request)\nexcept urllib.error.HTTPError as error: response = error\nif True:');
    // The web refuses it, and names the fields that it does not know.
    expect(await play(language, code)).toMatchObject({ code: 'invalid_input', errors: expect.arrayContaining([{ field: 'list', message: 'unknown field' }, { field: 'empty', message: 'unknown field' }]) });
  });
});

test('without a script, no form is shown that nothing could send; the script is served under the policy', async () => {
  expect(page).toContain('<details class="try" hidden>');
  const [, address = ''] = /<script type="module" src="(\/assets\/try\.js\?v=\w+)">/.exec(page) ?? [];
  const script = await web.call('GET', address, { headers: bearer(secrets.all) });
  expect([script.status, script.headers.get('content-type')]).toEqual([200, 'text/javascript; charset=utf-8']);
});
