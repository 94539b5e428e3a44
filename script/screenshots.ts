// Takes the screenshots of the documentation from the real pages: `npm run screenshots`. It runs sagas on the sandbox, opens
// their pages in Chromium, and writes docs/images/*.png. Run it after a change of the pages. With a folder as argument, it also
// writes screenshots of the start form and the API page there: wide and narrow, light and dark.
import { mkdir } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Browser, Page } from 'playwright-core';
import { DEMO_MAX_POLLS, demoSettings, setStage } from '../src/dev/stage.ts';
import type { Stage } from '../src/dev/stage.ts';
import { dropletApp } from '../src/droplets/app.ts';
import { loadConfig } from '../src/platform/config.ts';
import { silentLog } from '../src/platform/log.ts';
import { startWeb } from '../src/processes/web.ts';
import { launchBrowser } from '../test/support/browser.ts';

const folder = fileURLToPath(new URL('../docs/images/', import.meta.url));
const droplet = (name: string) => ({ name, region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64', tags: ['shop'] });
const options = (idempotencyKey: string) => ({ idempotencyKey, requestedBy: 'billing' });

const stop = new AbortController();
process.once('SIGINT', () => stop.abort(new Error('stopped')));
const say = (what: string) => process.stdout.write(`${what}\n`);

const stage = await setStage((what) => say(`starting ${what}`), stop.signal);
try {
  const config = loadConfig({ ...demoSettings, DIGITALOCEAN_TOKEN: 'sandbox', DIGITALOCEAN_API_URL: stage.sandbox.url, DATABASE_URL: stage.databaseUrl, PORT: '0', WAIT_MAX_POLLS: String(DEMO_MAX_POLLS) });
  const web = await startWeb(config, silentLog, { app: dropletApp, signal: stop.signal });
  const browser = await launchBrowser();
  try {
    const rescued = await rescuedAfterAKill(stage);
    await mkdir(folder, { recursive: true });
    await takePicture(browser, `${web.url}/sagas/${rescued}`, 'saga-page.png');
    await beforeAListOfThem(stage);
    await takePicture(browser, `${web.url}/sagas`, 'sagas-page.png');
    const [reviewed] = process.argv.slice(2);
    if (reviewed !== undefined) await takeForReview(browser, web.url, reviewed);
  } finally {
    await browser.close();
    await web.close();
  }
} finally {
  await stage.close();
}

/** A saga whose worker is killed between the POST and the save: another worker adopts the droplet. Resolves with its id. */
async function rescuedAfterAKill({ sandbox, client, workers }: Stage): Promise<string> {
  say('playing a saga whose worker is killed');
  sandbox.setFaults({ rules: [{ match: { method: 'POST', name: 'web-1' }, times: 1, effect: { holdAnswerMs: 5_000 } }] });
  const handle = await client.provisionDroplet(droplet('web-1'), options('order-4711'));
  while (!sandbox.state().some(({ name }) => name === 'web-1')) await delay(50, undefined, { signal: stop.signal });
  const name = (await client.events(handle.sagaId)).findLast(({ kind }) => kind === 'step_recorded')?.worker ?? '';
  await workers.find(({ pid }) => name.endsWith(`:${pid}`))?.kill();
  await handle.result({ signal: stop.signal });
  sandbox.resetFaults();
  return handle.sagaId;
}

/** Sagas of several statuses: completed, rolled back, waiting. */
async function beforeAListOfThem({ sandbox, client }: Stage): Promise<void> {
  say('playing sagas of several statuses');
  const ready = await Promise.all(['web-2', 'web-3'].map((name, index) => client.provisionDroplet(droplet(name), options(`order-${4712 + index}`))));
  await Promise.all(ready.map((handle) => handle.result({ signal: stop.signal })));
  sandbox.setFaults({ dropletLimit: 3 });
  const refused = await client.provisionDroplet(droplet('one-too-many'), options('order-4714'));
  await refused.result({ signal: stop.signal }).catch(() => undefined);
  sandbox.resetFaults();
  sandbox.setFaults({ neverActive: true });
  const waiting = await client.provisionDroplet(droplet('web-4'), options('order-4715'));
  for await (const { kind } of waiting.events({ signal: stop.signal })) if (kind === 'step_completed') break;
  await delay(2_500, undefined, { signal: stop.signal });
}

async function takePicture(browser: Browser, url: string, file: string): Promise<void> {
  const page = await browser.newPage({ viewport: { width: 1000, height: 770 } });
  await page.goto(url);
  await page.waitForLoadState('load');
  await page.screenshot({ path: `${folder}${file}` });
  await page.close();
  say(`wrote docs/images/${file}`);
}

/** Each page in its states, at both widths and in both schemes. */
async function takeForReview(browser: Browser, url: string, into: string): Promise<void> {
  await mkdir(into, { recursive: true });
  const fill = async (page: Page, size: string): Promise<void> => {
    await page.goto(`${url}/start`);
    await page.getByLabel('Name').fill('web-with-a-rather-long-name.shop.example.com');
    await page.getByLabel('Region').selectOption('lon1');
    await page.getByLabel('Size').selectOption(size);
    await page.getByLabel('Image').selectOption('debian-12-x64');
    await page.getByText('User data, lease, readiness and more').click();
  };
  const states: readonly (readonly [name: string, show: (page: Page) => Promise<unknown>])[] = [
    ['start', (page) => page.goto(`${url}/start`)],
    ['start-errors', async (page) => {
      await fill(page, 's-1vcpu-1gb');
      await page.getByLabel('Tags').fill('no good');
      await page.getByLabel('Lease', { exact: true }).fill('soon');
      await page.getByRole('button', { name: 'Preview…' }).click();
    }],
    ['start-preview', async (page) => {
      await fill(page, 's-2vcpu-4gb');
      await page.getByRole('button', { name: 'Preview…' }).click();
    }],
    ['start-refused', async (page) => {
      await fill(page, 's-1vcpu-512mb-10gb');
      await page.getByRole('button', { name: 'Preview…' }).click();
    }],
    ['api', (page) => page.goto(`${url}/docs`)],
  ];
  for (const width of [1_440, 390]) {
    for (const colorScheme of ['light', 'dark'] as const) {
      for (const [name, show] of states) {
        const page = await browser.newPage({ viewport: { width, height: 900 }, colorScheme });
        await show(page);
        await page.waitForLoadState('load');
        const file = `${name}-${width}-${colorScheme}.png`;
        await page.screenshot({ path: `${into}/${file}`, fullPage: name !== 'api' });
        await page.close();
        say(`wrote ${file}`);
      }
    }
  }
}
