// Bulk actions in a real browser: nothing of a preview is out of sight, and from the result of one there is a way back to it.
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { launchBrowser } from '../support/browser.ts';
import { openLoggedIn } from './login.ts';
import { basic, credentials, droplet, openWebStage, sagaIdOf } from './stage.ts';
import type { Web } from './stage.ts';

let web: Web;
let browser: Browser;

beforeAll(async () => {
  web = await openWebStage(credentials);
  browser = await launchBrowser();
});
afterAll(async () => {
  await browser.close();
  await web[Symbol.asyncDispose]();
});

const open = (options?: Parameters<Browser['newContext']>[0]) => openLoggedIn(browser, web, options);

const REASON = 'DigitalOcean returned 422 for DELETE /v2/droplets/4711: the droplet has a pending event, and cannot be destroyed before that has ended';

/** A saga of which the list has something to say. */
async function place(name: string, status: 'stuck' | 'running'): Promise<void> {
  const id = sagaIdOf(await web.call('POST', '/v1/sagas/provision_droplet', { body: { ...droplet, name }, headers: basic() }));
  await web.db.sql`update arcadia.sagas set status = ${status}, context = '{"droplet_id": 31337001}', wake_at = case when ${status} = 'stuck' then null else wake_at end where id = ${id}`;
  await web.db.sql`update arcadia.saga_events set detail = ${web.db.sql.json({ message: REASON })} where saga_id = ${id}`;
}

test.each([1_280, 390])('a preview and its result show each saga, what it is about and why, %d pixels wide', async (width) => {
  const name = `w${width}`;
  await place(`${name}-${'x'.repeat(190)}`, 'stuck');
  await place(`${name}-web-1`, 'stuck');
  await place(`${name}-${'y'.repeat(190)}`, 'running');
  const page = await open({ viewport: { width, height: 800 } });
  const outOfSight = () => page.evaluate<number>("Math.max(...[document.documentElement, ...document.querySelectorAll('.wide')].map((part) => part.scrollWidth - part.clientWidth))");
  await page.goto(`/sagas/bulk?action=cancel&q=${name}`);
  expect(await page.locator('.chosen tbody tr').count()).toBe(1);
  expect(await outOfSight()).toBe(0);
  await page.goto(`/sagas/bulk?action=retry&q=${name}`);
  expect(await page.locator('.chosen tbody tr').count()).toBe(2);
  expect(await page.locator('.chosen .why').allTextContents()).toEqual([REASON, REASON]);
  expect(await outOfSight()).toBe(0);
  await page.getByRole('button', { name: 'Retry selected' }).click();
  await page.getByRole('heading', { name: '2 of 2 are tried again' }).waitFor();
  expect(await outOfSight()).toBe(0);
  await page.context().close();
});

test('Back leads to a page, not to an error page of the browser', async () => {
  await place('back-1', 'stuck');
  await place('back-2', 'running');
  const page = await open();
  await page.goto('/sagas/bulk?action=retry&q=back-');
  await page.getByRole('button', { name: 'Retry selected' }).click();
  await page.getByRole('heading', { name: '1 of 1 is tried again' }).waitFor();
  expect(page.url()).toBe(`${web.url}/sagas/bulk?q=back-&action=retry`);
  await page.locator('.chosen').getByRole('link').click();
  await page.waitForURL(/\/sagas\/[\da-f-]{36}$/);
  await page.goBack();
  await page.getByRole('heading', { name: 'Nothing to retry' }).waitFor();
  await page.context().close();
});
