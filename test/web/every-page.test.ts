// Every page as people look at it: on a desk and on a phone, light and dark, with nothing to show, little, and much, with long
// names, and without a script. axe finds nothing, nothing is cut off at the side, and the browser
// complains of nothing. `script/screenshots` takes a picture of each with this file.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { startSandbox } from '../../src/sandbox/server.ts';
import type { Sandbox } from '../../src/sandbox/server.ts';
import { launchBrowser } from '../support/browser.ts';
import { writeSagas } from '../support/many-sagas.ts';
import { placeDroplet } from './droplets-stage.ts';
import { basic, credentials, droplet, openWebStage, sagaIdOf, secrets } from './stage.ts';
import type { Web } from './stage.ts';

const axeSource = readFileSync(createRequire(new URL('../third-party/package.json', import.meta.url)).resolve('axe-core/axe.min.js'), 'utf8');
const axeReport = z.object({ violations: z.array(z.object({ id: z.string(), nodes: z.array(z.object({ html: z.string(), failureSummary: z.string().optional() })) })) });

// By plain HTTP this header means nothing, and the browser says so each time.
const FOR_WANT_OF_TLS = /^The Cross-Origin-Opener-Policy header has been ignored/;
const LONG_NAME = `${'a-very-long-name-'.repeat(14)}end`;

// A folder: every page is looked at in every way, and kept there as a picture.
const pictures = process.env['ARCADIA_SCREENSHOTS'];

type View = Readonly<{ name: string; viewport: { width: number; height: number }; colorScheme: 'light' | 'dark'; javaScriptEnabled: boolean }>;

const desk: View = { name: 'on a desk, light', viewport: { width: 1440, height: 900 }, colorScheme: 'light', javaScriptEnabled: true };
const phone: View = { name: 'on a phone, dark', viewport: { width: 390, height: 800 }, colorScheme: 'dark', javaScriptEnabled: true };
const deskByNight: View = { ...desk, name: 'on a desk, dark', colorScheme: 'dark' };
const phoneByDay: View = { ...phone, name: 'on a phone, light', colorScheme: 'light' };
const scriptless: View = { name: 'on a phone, light, without a script', viewport: { width: 390, height: 800 }, colorScheme: 'light', javaScriptEnabled: false };

let browser: Browser;
let sandbox: Sandbox;
beforeAll(async () => {
  sandbox = await startSandbox({ ratePerMinute: null, ratePerHour: null });
  browser = await launchBrowser();
});
afterAll(async () => {
  await browser.close();
  await sandbox.close();
});

const plainPaths = ['/sagas', '/droplets', '/droplets/orphans', '/leases', '/leases?state=held', '/leases/approve', '/start', '/fleet', '/fleet?span=week', '/audit', '/docs', '/no-such-page'];

/** Sagas in every state, and droplets of every kind, with long names among them. Resolves with the pages of some. */
async function fill(web: Web): Promise<string[]> {
  const names = ['web-1', LONG_NAME, 'stuck-1', 'gone-1', 'undone-1'];
  const ids: string[] = [];
  for (const name of names) ids.push(sagaIdOf(await web.call('POST', '/v1/sagas/provision_droplet', { body: { ...droplet, name: name.slice(0, 255) }, headers: basic() })));
  const [, long = '', stuck = '', done = '', undone = ''] = ids;
  const failure = JSON.stringify({ code: 'digitalocean_rejected', message: `no room ${'x'.repeat(300)}`, step: 'create_droplet', retryable: false });
  await web.db.sql`update arcadia.sagas set status = 'stuck', wake_at = null, attempt = 5, error = ${failure}::text::jsonb where id = ${stuck}`;
  await web.db.sql`update arcadia.sagas set status = 'completed', wake_at = null, finished_at = now(), cursor = 2, context = '{"droplet_id": 4711, "public_ipv4": "203.0.113.7"}' where id = ${done}`;
  await web.db.sql`update arcadia.sagas set status = 'compensated', wake_at = null, finished_at = now(), error = ${failure}::text::jsonb where id = ${undone}`;
  for (let seq = 1; seq <= 60; seq += 1) {
    await web.db.sql`insert into arcadia.saga_events (saga_id, seq, kind, step, attempt, detail, worker) values (${long}, ${seq}, 'step_retried', 'create_droplet', ${seq}, ${JSON.stringify({ message: `try ${['a', 'b'][seq % 2]}`, delayMs: 10 })}::text::jsonb, ${`${'host-'.repeat(30)}:1`})`;
  }
  await web.db.sql`update arcadia.sagas set revision = 60, attempt = 60, status = 'running' where id = ${long}`;
  const placed = await placeDroplet(web.db, { name: LONG_NAME.slice(0, 255), tags: ['shop'], leaseInS: 600, drift: { field: 'size_slug', desired: 's-1vcpu-1gb', actual: 's-2vcpu-2gb' } });
  await placeDroplet(web.db, { orphan: 'surplus', requestedBy: null });
  await placeDroplet(web.db, { orphan: 'unknown', requestedBy: null });
  await placeDroplet(web.db, { isProtected: true, usdPerHour: null });
  return [...ids.map((id) => `/sagas/${id}`), `/droplets/${placed.dropletId}`, '/sagas?q=a-very&sort=-age', '/sagas/bulk?action=cancel&q=web', '/droplets?q=nothing'];
}

// The rules whose outcome depends on colours, sizes, and what a narrow page hides. All others are asked in the first view.
const rulesOfViews = [
  'aria-hidden-focus', 'button-name', 'color-contrast', 'empty-heading', 'empty-table-header', 'input-button-name', 'label', 'link-in-text-block', 'link-name', 'page-has-heading-one', 'region',
  'scrollable-region-focusable', 'select-name', 'summary-name',
];

type Fault = Readonly<{ view: string; what: string }>;

// How a page looks follows from its markup, the style sheet and the view. The frame, the banner and the main part that were
// looked at in a view, as those of pages that show the same whatever is stored, are not looked at in it again.
const known = new Set<string>();

/** The views in which a part of the page has not been looked at. Numbers are as wide, whichever they are. */
async function viewsDue(web: Web, path: string, views: readonly View[]): Promise<readonly View[]> {
  const { text } = await web.call('GET', path, { headers: { ...basic(), accept: 'text/html' } });
  const parts = text.replaceAll(/\b[\da-f]{8}(-[\da-f-]{27})?\b/g, 'id').replaceAll(/\d/g, '0').split(/(?=<section id="fleet"|<main)/);
  if (parts.length !== 2 && parts.length !== 3) throw new Error(`${path}: expected a frame, at most one banner, and a main part`);
  const keysOf = (view: View) => parts.map((part) => `${view.name} ${part}`);
  const due = views.filter((view) => pictures !== undefined || keysOf(view).some((key) => !known.has(key)));
  for (const key of due.flatMap(keysOf)) known.add(key);
  return due;
}

/** What is wrong with the pages. Each is loaded once, and then looked at in all views, which agree on scripts. */
async function lookAt(web: Web, paths: readonly string[], views: readonly View[], amount: string): Promise<Fault[]> {
  const [first = desk] = views;
  const { name: _name, ...options } = first;
  const context = await browser.newContext({ baseURL: web.url, httpCredentials: { username: 'ada', password: secrets.password }, ...options });
  await context.addInitScript({ content: axeSource });
  const page = await context.newPage();
  const found: Fault[] = [];
  let view = first;
  const tell = (what: string) => void found.push({ view: view.name, what });
  page.on('console', (message) => {
    if (message.type() === 'error' && !FOR_WANT_OF_TLS.test(message.text()) && !message.text().includes('404')) tell(message.text());
  });
  page.on('pageerror', (error) => tell(String(error)));
  for (const path of paths) {
    const due = await viewsDue(web, path, views);
    if (due.length === 0) continue;
    [view = first] = due;
    await changeTo(page, view);
    await page.goto(path);
    if ((await page.evaluate("document.querySelectorAll('main h1').length")) !== 1) tell(`${path}: no heading, or several`);
    for (view of due) {
      await changeTo(page, view);
      const cutOff = await page.evaluate('document.documentElement.scrollWidth - document.documentElement.clientWidth');
      if (pictures !== undefined) await page.screenshot({ path: `${pictures}/${`${path.replaceAll(/[\da-f]{8}-[\da-f-]{27}/g, (id) => String(paths.indexOf(`/sagas/${id}`)))} ${amount} ${view.name}`.replaceAll(/[^\w]+/g, '-').slice(1)}.png`, fullPage: path !== '/docs' });
      if (cutOff !== 0) tell(`${path}: ${String(cutOff)} pixels too wide`);
      // axe needs timers, which a page without scripts has none of.
      if (view.javaScriptEnabled) for (const violation of await askAxe(page, pictures === undefined && view !== first ? rulesOfViews : undefined)) tell(`${path}: ${violation}`);
    }
  }
  await context.close();
  return found;
}

async function changeTo(page: Page, { viewport, colorScheme }: View): Promise<void> {
  if (page.viewportSize()?.width !== viewport.width) await page.setViewportSize(viewport);
  await page.emulateMedia({ colorScheme });
}

async function askAxe(page: Page, rules?: readonly string[]): Promise<string[]> {
  const only = rules === undefined ? {} : { runOnly: rules };
  const { violations } = axeReport.parse(await page.evaluate(`axe.run(${JSON.stringify({ resultTypes: ['violations'], ...only })})`));
  return violations.map(({ id, nodes }) => `${id}: ${nodes.slice(0, 2).map(({ html, failureSummary = '' }) => `${html.slice(0, 200)} ${failureSummary}`).join('; ')}`);
}

describe.each([
  ['nothing', 0, [desk, phone]],
  ['a little', 0, [desk, phone, scriptless]],
  ['much', 500, [desk]],
] as const)('with %s to show', (amount, many, someViews) => {
  const views: readonly View[] = pictures === undefined ? someViews : [desk, deskByNight, phone, phoneByDay, scriptless];
  let web: Web;
  let paths: readonly string[] = plainPaths;
  let faults: Promise<Fault[]> | undefined;
  beforeAll(async () => {
    web = await openWebStage({ ...credentials, DIGITALOCEAN_TOKEN: 'any', DIGITALOCEAN_API_URL: sandbox.url });
    if (amount !== 'nothing') paths = [...plainPaths, ...(await fill(web))];
    if (many > 0) for (const status of ['stuck', 'running', 'compensated', 'completed'] as const) await writeSagas(web.db, { count: many / 4, status, daysAgo: 0, eventsEach: 3 });
  });
  afterAll(() => web[Symbol.asyncDispose]());

  test.each(views.filter(({ javaScriptEnabled }) => javaScriptEnabled))('every page is well $name', async ({ name }) => {
    faults ??= lookAt(web, paths, views.filter(({ javaScriptEnabled }) => javaScriptEnabled), amount);
    expect((await faults).filter(({ view }) => view === name)).toEqual([]);
  });

  test.each(views.filter(({ javaScriptEnabled }) => !javaScriptEnabled))('every page is well $name', async (view) => {
    expect(await lookAt(web, paths, [view], amount)).toEqual([]);
  });
});
