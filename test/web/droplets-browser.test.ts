// The pages about droplets in a real browser: without a script, on a phone, by keyboard.
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { launchBrowser } from '../support/browser.ts';
import { placeDroplet, placeSync } from './droplets-stage.ts';
import { openLoggedIn } from './login.ts';
import { credentials, openWebStage } from './stage.ts';
import type { Web } from './stage.ts';

let web: Web;
let browser: Browser;
const complaints: string[] = [];

beforeAll(async () => {
  web = await openWebStage(credentials);
  browser = await launchBrowser();
  await placeSync(web.db, { agoS: 5 });
});
afterAll(async () => {
  await browser.close();
  await web[Symbol.asyncDispose]();
});

async function open(options: Parameters<Browser['newContext']>[0] = {}) {
  const page = await openLoggedIn(browser, web, options);
  page.on('console', (message) => {
    if (message.type() === 'error') complaints.push(message.text());
  });
  page.on('pageerror', (error) => complaints.push(String(error)));
  return page;
}

test('without a script, a droplet is found, protected, unprotected and destroyed, each after a question', async () => {
  const { dropletId } = await placeDroplet(web.db, { name: 'plain-1' });
  await placeDroplet(web.db, { name: 'other' });
  const page = await open({ javaScriptEnabled: false });
  await page.goto('/droplets');
  await page.getByRole('searchbox').fill('plain');
  await page.getByRole('button', { name: 'Search' }).click();
  await page.getByRole('link', { name: 'plain-1' }).click();
  await page.getByRole('button', { name: 'Protect…' }).click();
  await page.locator('#protect').getByRole('button', { name: 'Not now' }).click();
  await page.getByRole('button', { name: 'Protect…' }).click();
  await page.locator('#protect').getByRole('button', { name: 'Protect', exact: true }).click();
  await page.getByText('The droplet is protected.').waitFor();
  expect(await page.getByRole('button', { name: 'Destroy…' }).count()).toBe(0);
  await page.getByRole('button', { name: 'Lift protection…' }).click();
  await page.locator('#unprotect').getByRole('button', { name: 'Lift protection' }).click();
  await page.getByText('The protection is lifted.').waitFor();
  await page.getByRole('button', { name: 'Destroy…' }).click();
  const question = page.locator('#destroy');
  // The browser itself holds back a form whose confirmation is wrong.
  await question.getByLabel("type the droplet's id").fill('plain-1');
  await question.getByRole('button', { name: 'Destroy it' }).click();
  expect(await web.db.sql`select 1 from arcadia.sagas where name = 'destroy_droplet'`).toHaveLength(0);
  await question.getByLabel("type the droplet's id").fill(String(dropletId));
  await question.getByRole('button', { name: 'Destroy it' }).click();
  await page.getByText('This is the new saga.').waitFor();
  expect(await web.db.sql`select requested_by from arcadia.sagas where name = 'destroy_droplet'`).toMatchObject([{ requestedBy: 'http:ada' }]);
  await page.context().close();
});

test('nothing is wider than a phone, and the list is walked by keyboard', async () => {
  const { dropletId } = await placeDroplet(web.db, {
    name: `a-${'long-'.repeat(40)}name`, requestedBy: `http:${'somebody'.repeat(12)}`, tags: ['t'.repeat(200)], size: 's'.repeat(60), drift: { field: 'size_slug', desired: 'd'.repeat(100), actual: 'a'.repeat(100) }, leaseInS: 100,
  });
  await placeDroplet(web.db, { name: `o-${'x'.repeat(200)}`, requestedBy: null, orphan: 'surplus', orphanReason: 'because '.repeat(60) });
  await placeDroplet(web.db, { name: `b-${'long-'.repeat(40)}name`, requestedBy: `http:${'somebody'.repeat(12)}`, leaseInS: -100, isProtected: true });
  const page = await open({ viewport: { width: 390, height: 800 }, colorScheme: 'dark' });
  for (const path of ['/droplets', '/droplets?region=fra1', `/droplets/${dropletId}`, '/droplets/orphans', '/leases', '/leases?state=ended', '/leases/approve']) {
    await page.goto(path);
    expect([path, await page.evaluate('document.documentElement.scrollWidth - document.documentElement.clientWidth')]).toEqual([path, 0]);
  }
  await web.db.sql`insert into arcadia.audit (actor, action, detail) values (${`cli:${'somebody'.repeat(12)}`}, 'dashboard:PUT /queues/api/queues/:queueName/pause', '{"path": "/queues/api/queues/saga-steps/pause"}')`;
  for (const path of ['/droplets/orphans', '/audit']) {
    await page.goto(path);
    expect([path, await page.evaluate("[...document.querySelectorAll('.wide')].map((table) => table.scrollWidth - table.clientWidth)")]).toEqual([path, [0]]);
  }
  await page.setViewportSize({ width: 1_280, height: 800 });
  await page.goto('/droplets/orphans');
  expect(await page.evaluate("[...document.querySelectorAll('.wide')].map((table) => table.scrollWidth - table.clientWidth)")).toEqual([0]);
  await page.goto('/droplets?q=long-');
  await page.keyboard.press('j');
  await page.keyboard.press('Enter');
  await page.waitForURL(`**/droplets/${dropletId}`);
  await page.keyboard.press('u');
  await page.waitForURL('**/droplets');
  await page.context().close();
  expect(complaints).toEqual([]);
});

test('without a script, held leases are seen on top, one is renewed, and the others are approved after a question', async () => {
  for (let index = 0; index < 25; index += 1) await placeDroplet(web.db, { name: `ended-${index}`, leaseInS: -1_000 + index, requestedBy: index % 2 === 0 ? 'http:ada' : 'cli:ci' });
  const page = await open({ javaScriptEnabled: false });
  await page.goto('/leases');
  await page.getByText('25 ended leases are held').waitFor();
  await page.getByRole('button', { name: 'Renew ended-3', exact: true }).focus();
  await page.keyboard.press('Enter');
  const question = page.getByRole('heading', { name: 'Renew the lease of ended-3?' }).locator('..');
  await question.getByLabel('From now').selectOption('4 hours');
  await question.getByRole('button', { name: 'Renew', exact: true }).click();
  await page.getByText('The lease is renewed.').waitFor();
  await page.getByRole('link', { name: 'Approve…' }).click();
  await page.getByRole('heading', { name: 'Destroy 24 droplets?' }).waitFor();
  expect(await page.getByRole('link', { name: 'ended-3', exact: true }).count()).toBe(0);
  // The browser itself holds back a form whose confirmation is wrong.
  await page.getByLabel('type the number of droplets').fill('25');
  await page.getByRole('button', { name: 'Destroy 24 droplets' }).click();
  expect(await web.db.sql`select 1 from arcadia.cloud_provisioned where lease_approved_at is not null`).toHaveLength(0);
  await page.getByLabel('type the number of droplets').fill('24');
  await page.getByRole('button', { name: 'Destroy 24 droplets' }).click();
  await page.getByRole('heading', { name: '24 of 24 approved' }).waitFor();
  expect(await web.db.sql`select distinct lease_approved_by from arcadia.cloud_provisioned where lease_approved_at is not null`).toMatchObject([{ leaseApprovedBy: 'http:ada' }]);
  await page.context().close();
  expect(complaints).toEqual([]);
});
