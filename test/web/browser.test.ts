// The pages as an operator uses them, in a real browser, with a real worker and the sandbox in DigitalOcean's place.
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startSandbox } from '../../src/sandbox/server.ts';
import type { Sandbox } from '../../src/sandbox/server.ts';
import { silentLog } from '../../src/platform/log.ts';
import { sagaWithTimeline } from '../../src/web/api/saga-shapes.ts';
import type { RunningWorker } from '../../src/processes/worker.ts';
import { startWorker } from '../../src/processes/worker.ts';
import { REMOTE_NAME, launchBrowser } from '../support/browser.ts';
import { patience } from '../support/patience.ts';
import { waitFor } from '../support/wait-for.ts';
import { openLoggedIn } from './login.ts';
import { basic, credentials, droplet, openWebStage, sagaIdOf } from './stage.ts';
import type { Web } from './stage.ts';

let web: Web;
let sandbox: Sandbox;
let worker: RunningWorker;
let browser: Browser;
const complaints: string[] = [];

beforeAll(async () => {
  sandbox = await startSandbox({ activateAfterMs: 600_000, ratePerMinute: null, ratePerHour: null });
  web = await openWebStage({ ...credentials, COMPENSATION_ATTEMPTS: '2', STEP_BACKOFF_MS: '20', DIGITALOCEAN_TOKEN: 'any', DIGITALOCEAN_API_URL: sandbox.url, DIGITALOCEAN_REQUESTS_PER_MINUTE: '100000', DIGITALOCEAN_REQUESTS_PER_HOUR: '1000000' });
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
  const page = await openLoggedIn(browser, web, options);
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
  await page.waitForURL(`**/sagas/${id}?list=q%3Dbrow`);
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

test('what people work with: text that can be selected, sorting, values to copy, local times, saved filters, the way back', async () => {
  const ids = [await start('worked-1'), await start('worked-2')];
  const page = await open({ timezoneId: 'Asia/Tokyo', permissions: ['clipboard-read', 'clipboard-write'] });
  await page.goto('/sagas?q=worked');
  // Text in a row is selected, and opens nothing.
  const about = page.locator('tr', { hasText: 'worked-1' }).locator('.what');
  await about.click({ clickCount: 3 });
  expect(await page.evaluate('getSelection().toString().length')).toBeGreaterThan(5);
  expect(new URL(page.url()).pathname).toBe('/sagas');
  await page.evaluate('getSelection().removeAllRanges()');
  await page.getByRole('link', { name: 'Started' }).click();
  await page.waitForURL('**/sagas?q=worked&sort=age');
  await page.getByRole('link', { name: 'Started' }).click();
  await page.waitForURL('**/sagas?q=worked&sort=-age');
  expect(await page.locator('a[data-walk]').allTextContents()).toEqual(['worked-1', 'worked-2']);

  // A filter is saved in this browser, found again, and forgotten.
  const saved = page.getByRole('navigation', { name: 'Saved filters' });
  await saved.getByLabel('Name of this filter').fill('My workers');
  await saved.getByRole('button', { name: 'Save' }).click();
  await page.goto('/sagas');
  await saved.getByRole('link', { name: 'My workers' }).click();
  await page.waitForURL('**/sagas?q=worked&sort=-age');
  await saved.getByRole('button', { name: 'Forget the saved filter My workers' }).click();
  await page.reload();
  expect(await saved.getByRole('link', { name: 'My workers' }).count()).toBe(0);

  // From a saga to the next in the list, and back to it as it was.
  await page.getByRole('link', { name: 'worked-1' }).click();
  await page.waitForURL(`**/sagas/${ids[0]}?list=**`);
  await page.keyboard.press('n');
  await page.waitForURL(`**/sagas/${ids[1]}?list=**`);
  await page.keyboard.press('p');
  await page.waitForURL(`**/sagas/${ids[0]}?list=**`);
  await page.getByRole('button', { name: `Copy arcadia saga ${ids[0]}` }).click();
  await page.locator('#told', { hasText: 'Copied.' }).waitFor({ state: 'attached' });
  expect(await page.evaluate('navigator.clipboard.readText()')).toBe(`arcadia saga ${ids[0]}`);
  const exact = page.locator('.facts time[data-exact]').first();
  const at = new Date((await exact.getAttribute('datetime')) ?? '');
  expect(await exact.textContent()).toContain(`${String((at.getUTCHours() + 9) % 24).padStart(2, '0')}:${String(at.getUTCMinutes()).padStart(2, '0')}`);
  expect(await exact.getAttribute('title')).toContain(at.toISOString().slice(11, 19));
  expect(await exact.getAttribute('title')).toContain('UTC');
  const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('link', { name: 'Download' }).click()]);
  expect(download.suggestedFilename()).toBe(`saga-${ids[0]?.slice(0, 8)}.json`);
  await page.keyboard.press('u');
  await page.waitForURL('**/sagas?q=worked&sort=-age');
  for (const id of ids) await web.call('POST', `/v1/sagas/${id}/cancel`, { headers: basic() });
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
  expect(await page.locator('#told').textContent()).toBe('needs attention: create_droplet');
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
  await page.waitForURL(`**/sagas/${id}`);
  expect(page.url()).not.toContain('told');
  await page.locator('.title .badge.compensated').waitFor();
  await page.reload();
  expect(await page.locator('.notice').count()).toBe(0);
  expect(await page.locator('.timeline').textContent()).toContain('needed attention');
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
  await page.getByText('The rollback has begun.').waitFor();
  await page.goto('/sagas?q=plain-');
  await page.getByRole('link', { name: 'Cancel 2…' }).click();
  expect(await page.locator('h1').textContent()).toBe('Roll back 2 sagas?');
  await page.getByLabel('Reason').fill('clean up');
  await page.getByRole('checkbox').first().uncheck();
  await page.getByRole('button', { name: 'Roll back selected' }).click();
  expect(await page.locator('h1').textContent()).toBe('1 of 1 is being rolled back');
  await page.getByRole('link', { name: 'Show it' }).click();
  await page.getByRole('button', { name: 'Roll back selected' }).click();
  expect(await page.locator('h1').textContent()).toBe('1 of 1 is being rolled back');
  for (const id of ids) await waitFor(async () => (await read(id)).status === 'compensated', { what: 'the rollback' });
  await leave(page);
});

test('a droplet is started from the form: preview, correction, confirmation; twice clicked, it is one saga', async () => {
  const page = await open({ viewport: { width: 390, height: 800 } });
  await page.goto('/sagas');
  await page.getByRole('link', { name: 'New droplet' }).click();
  await page.getByLabel('Name').fill('formed');
  await page.getByLabel('Region').selectOption('lon1');
  await page.getByLabel('Size').selectOption('s-1vcpu-512mb-10gb');
  await page.getByLabel('Image').selectOption('debian-12-x64');
  await page.getByText('User data, lease, readiness and more').click();
  await page.getByLabel('User data').fill('#!/bin/sh\necho "formed"');
  await page.getByRole('button', { name: 'Preview…' }).click();
  expect(await page.locator('.checks .problem').textContent()).toMatch(/not available in lon1/);
  expect(await page.evaluate('document.documentElement.scrollWidth - document.documentElement.clientWidth')).toBeLessThanOrEqual(0);
  await page.getByRole('button', { name: 'Change' }).click();
  expect(await page.getByLabel('User data').inputValue()).toBe('#!/bin/sh\necho "formed"');
  await page.getByLabel('Region').selectOption('fra1');
  await page.getByRole('button', { name: 'Preview…' }).click();
  expect(await page.locator('.now').textContent()).toMatch(/This is possible now\. *\$0\.00595 an hour, at most \$4\.00 a month\./);
  await page.getByRole('button', { name: 'Create droplet' }).dblclick();
  await page.waitForURL('**/sagas/*');
  expect(await page.locator('h1').textContent()).toBe('formed');
  // The browser has no preview to show again: it shows the form, and forward leads on.
  await page.goBack();
  await page.getByRole('button', { name: 'Preview…' }).waitFor();
  expect(new URL(page.url()).pathname).toBe('/start');
  await page.goForward();
  await page.locator('h1', { hasText: 'formed' }).waitFor();
  const found = await web.db.sql<{ input: { user_data?: string } }[]>`select input from arcadia.sagas where input->>'name' = 'formed'`;
  expect(found).toHaveLength(1);
  await waitFor(async () => sandbox.state().some(({ name }) => name === 'formed'), { what: 'the droplet' });
  expect(sandbox.userData(sandbox.state().find(({ name }) => name === 'formed')?.id ?? 0)).toBe('#!/bin/sh\necho "formed"');
  await leave(page);
});

test('the API page sends an operation and shows its answer', async () => {
  const page = await open();
  await page.goto('/docs#planProvision');
  const operation = page.locator('#planProvision');
  await operation.getByText('Try it').click();
  await operation.getByRole('button', { name: 'Send POST' }).click();
  await expect.poll(() => operation.locator('output').textContent()).toMatch(/^200 OK\n\{\n {2}"possible": "yes"/);
  const reading = page.locator('#getSaga');
  await reading.getByText('Try it').click();
  await reading.getByLabel('id').fill('not an id/..');
  await reading.getByRole('button', { name: 'Send GET' }).click();
  await expect.poll(() => reading.locator('output').textContent()).toMatch(/^400 .*expected a saga id, a UUID/s);
  complaints.splice(0, complaints.length, ...complaints.filter((text) => !text.includes('400')));
  await leave(page);
});

test('a page that cannot be renewed says since when, and counts nothing, until it can be again', async () => {
  const id = await start('frozen');
  const page = await open();
  await page.goto(`/sagas/${id}`);
  await page.locator('.timeline .live .polls', { hasText: /polls/ }).waitFor();
  await page.route(`**/sagas/${id}`, (route) => route.fulfill({ status: 503, body: 'away' }));
  const notice = page.locator('#stale');
  await notice.waitFor();
  expect(await notice.textContent()).toMatch(/^Not up to date since \d\d:\d\d:\d\d UTC: arcadia-cloud answers 503\. Trying again\.$/);
  const counted = async () => page.locator('#live time').allTextContents();
  const before = await counted();
  expect(before.length).toBeGreaterThan(0);
  await page.waitForTimeout(2_500);
  expect(await counted()).toEqual(before);
  expect(await page.locator('#stale').count()).toBe(1);
  await page.unroute(`**/sagas/${id}`);
  await notice.waitFor({ state: 'detached' });
  await expect.poll(counted, { timeout: 30_000 * patience() }).not.toEqual(before);
  complaints.splice(0, complaints.length, ...complaints.filter((text) => !text.includes('503')));
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
  await waitFor(async () => /revision 0 is outdated/.test(await job()), { what: 'the job to be run again' });
  expect((await read(id)).events.filter(({ kind }) => kind === 'step_completed').length).toBe(1);
  await leave(page);
  expect(complaints).toEqual([]);
});
