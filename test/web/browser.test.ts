// The pages as an operator uses them, in a real browser, with a real worker and the sandbox in DigitalOcean's place.
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startSandbox } from '../../src/sandbox/server.ts';
import type { Sandbox } from '../../src/sandbox/server.ts';
import { silentLog } from '../../src/platform/log.ts';
import { sagaWithTimeline } from '../../src/web/api/shapes.ts';
import type { RunningWorker } from '../../src/processes/worker.ts';
import { startWorker } from '../../src/processes/worker.ts';
import { REMOTE_NAME, launchBrowser } from '../support/browser.ts';
import { waitFor } from '../support/wait-for.ts';
import { basic, credentials, droplet, openWebStage, sagaIdOf, secrets } from './stage.ts';
import type { Web } from './stage.ts';

let web: Web;
let sandbox: Sandbox;
let worker: RunningWorker;
let browser: Browser;
const complaints: string[] = [];

beforeAll(async () => {
  sandbox = await startSandbox({ activateAfterMs: 600_000, ratePerMinute: null, ratePerHour: null });
  web = await openWebStage({ ...credentials, COMPENSATION_ATTEMPTS: '2', STEP_BACKOFF_MS: '20', DIGITALOCEAN_TOKEN: 'any', DIGITALOCEAN_API_URL: sandbox.url });
  worker = await startWorker({ ...web.config, wait: { pollIntervalMs: 300, maxPolls: 1_000 } }, silentLog);
  browser = await launchBrowser();
});
afterAll(async () => {
  await browser.close();
  await worker.close();
  await web[Symbol.asyncDispose]();
  await sandbox.close();
});

// By plain HTTP this header means nothing, and the browser says so each time.
const FOR_WANT_OF_TLS = /^The Cross-Origin-Opener-Policy header has been ignored/;

/** A page of somebody who is logged in. What the browser complains of (the policy, scripts, files) is kept. */
async function open(options: Parameters<Browser['newContext']>[0] = {}): Promise<Page> {
  const context: BrowserContext = await browser.newContext({ baseURL: web.url, httpCredentials: { username: 'ada', password: secrets.password }, ...options });
  context.setDefaultTimeout(10_000);
  const page = await context.newPage();
  page.on('console', (message) => {
    if (message.type() === 'error' && !FOR_WANT_OF_TLS.test(message.text())) complaints.push(message.text());
  });
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('requestfailed', (request) => {
    // A stream, or a page that renews itself, is left when somebody goes; also to another page.
    if (!request.url().endsWith('/events') && !left.has(page) && request.failure()?.errorText !== 'net::ERR_ABORTED') complaints.push(`${request.url()} ${request.failure()?.errorText ?? ''}`);
  });
  return page;
}

const left = new Set<Page>();

async function leave(page: Page): Promise<void> {
  left.add(page);
  await page.context().close();
}

const start = async (name: string): Promise<string> => {
  const id = sagaIdOf(await web.call('POST', '/v1/sagas/provision_droplet', { body: { ...droplet, name }, headers: basic() }));
  await waitFor(async () => (await read(id)).context['droplet_id'] !== undefined, { what: 'the droplet' });
  return id;
};
const read = async (id: string) => sagaWithTimeline.parse((await web.call('GET', `/v1/sagas/${id}`, { headers: basic() })).json());

test('a saga is found by keyboard, watched, cancelled after a question, and seen to be rolled back', async () => {
  const id = await start('browsed');
  await start('other');
  const page = await open();
  await page.goto('/sagas');
  await page.keyboard.press('/');
  await page.keyboard.type('brow');
  await page.keyboard.press('Enter');
  await page.waitForURL('**/sagas?q=brow');
  expect(await page.locator('a[data-walk]').allTextContents()).toEqual(['browsed']);
  await page.keyboard.press('j');
  expect(await page.evaluate('document.activeElement.textContent')).toBe('browsed');
  await page.keyboard.press('Enter');
  await page.waitForURL(`**/sagas/${id}`);
  expect(await page.locator('.now').textContent()).toMatch(/waiting for the droplet to become active/i);

  // It renews itself: the polls go on, in the same document.
  await page.evaluate("document.body.dataset.mark = 'same'");
  await page.locator('.timeline .live .polls', { hasText: /^([5-9]|\d\d) polls/ }).waitFor();
  expect(await page.evaluate('document.body.dataset.mark')).toBe('same');

  await page.getByRole('link', { name: 'in saga-steps' }).click();
  const [back] = await Promise.all([page.context().waitForEvent('page'), page.getByRole('link', { name: 'saga', exact: true }).click()]);
  await back.waitForURL(`**/sagas/${id}`);
  await back.close();
  await page.goBack();

  const question = page.locator('#cancel');
  await page.getByRole('button', { name: 'Cancel…' }).click();
  expect(await question.textContent()).toMatch(/Droplet \d+ is destroyed/);
  await question.getByRole('button', { name: 'Keep it' }).click();
  await question.waitFor({ state: 'hidden' });
  expect((await read(id)).status).toBe('running');
  await page.getByRole('button', { name: 'Cancel…' }).click();
  await question.getByLabel('Reason').fill('too <b>large</b>');
  await question.getByRole('button', { name: 'Roll it back' }).click();
  await page.locator('.title .badge.compensated').waitFor();
  expect(await page.locator('.timeline').textContent()).toContain('undo create_droplet');
  expect(await page.getByRole('row', { name: /http:ada cancel_requested/ }).textContent()).toContain('too <b>large</b>');
  expect(await page.getByRole('button', { name: 'Cancel…' }).count()).toBe(0);
  await page.keyboard.press('u');
  await page.waitForURL('**/sagas');
  await leave(page);
});

test('a stuck saga stands first, says why and what to press, and goes on when it is pressed', async () => {
  const id = await start('jammed');
  sandbox.setFaults({ rules: [{ match: { method: 'DELETE' }, effect: { status: 422, body: { id: 'unprocessable_entity', message: 'Droplet is locked.', request_id: 'req-4711' } } }] });
  const page = await open({ colorScheme: 'dark', viewport: { width: 390, height: 800 } });
  await page.goto(`/sagas/${id}`);
  await web.call('POST', `/v1/sagas/${id}/cancel`, { headers: basic() });
  // Told by the stream, and to those who do not see.
  await page.locator('.title .badge.stuck').waitFor();
  expect(await page.locator('#told').textContent()).toBe('stuck: create_droplet');
  const said = await page.locator('.now.bad').textContent();
  expect(said).toMatch(/Undoing create_droplet failed 2 times/);
  expect(said).toMatch(/Droplet is locked\./);
  expect(said).toMatch(/req-4711/);
  // Nothing is wider than a phone.
  expect(await page.evaluate('document.documentElement.scrollWidth - document.documentElement.clientWidth')).toBeLessThanOrEqual(0);
  await page.goto('/sagas');
  expect(await page.locator('a[data-walk]').first().textContent()).toBe('jammed');
  await page.locator('a[data-walk]').first().click();
  sandbox.setFaults({ rules: [] });
  await page.getByRole('button', { name: 'Retry…' }).click();
  await page.locator('#retry').getByRole('button', { name: 'Retry' }).click();
  await page.locator('.title .badge.compensated').waitFor();
  expect(await page.locator('.timeline').textContent()).toContain('waited for a person');
  await leave(page);
});

test('without a script, and by plain HTTP from another machine, all of it can be done', async () => {
  const ids = [await start('plain-1'), await start('plain-2'), await start('plain-3')];
  const page = await open({ javaScriptEnabled: false, baseURL: web.url.replace('127.0.0.1', REMOTE_NAME) });
  await page.goto('/sagas');
  await page.getByRole('searchbox').fill('plain-');
  await page.getByRole('button', { name: 'Search' }).click();
  await page.getByRole('link', { name: 'plain-1' }).click();
  await page.getByRole('button', { name: 'Cancel…' }).click();
  await page.locator('#cancel').getByRole('button', { name: 'Roll it back' }).click();
  await page.getByText('the saga moves as you asked').waitFor();
  await page.goto('/sagas?q=plain-');
  await page.getByRole('link', { name: 'Cancel 2…' }).click();
  expect(await page.locator('h1').textContent()).toBe('Roll back 2 sagas?');
  await page.getByLabel('Reason').fill('clean up');
  await page.getByRole('button', { name: 'Roll back 2 sagas' }).click();
  expect(await page.locator('h1').textContent()).toBe('2 of 2 are being rolled back');
  for (const id of ids) await waitFor(async () => (await read(id)).status === 'compensated', { what: 'the rollback' });
  await leave(page);
});

test("Bull Board's button to repeat a finished job does no harm, and neither page breaks the policy", async () => {
  const id = await start('repeated');
  const page = await open();
  await page.goto(`/queues/queue/saga-steps/${id}_0`);
  await page.getByRole('link', { name: 'saga', exact: true }).waitFor();
  // Its buttons have no names: copy, retry, remove.
  await page.locator('main button').nth(1).click();
  await page.getByRole('alertdialog').getByRole('button', { name: 'Confirm' }).click();
  const job = async () => (await web.call('GET', `/queues/api/queues/saga-steps/${id}_0`, { headers: basic() })).text;
  await waitFor(async () => /revision 0 is past/.test(await job()), { what: 'the job to be run again' });
  expect((await read(id)).events.filter(({ kind }) => kind === 'step_completed').length).toBe(1);
  await leave(page);
  expect(complaints).toEqual([]);
});
