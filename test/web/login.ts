// A browser of somebody who is logged in.
import type { Browser, Page } from 'playwright-core';
import { patience } from '../support/patience.ts';
import { secrets } from './stage.ts';
import type { Web } from './stage.ts';

/** Opens a page of a context of its own. */
export async function openLoggedIn(browser: Browser, { url }: Pick<Web, 'url'>, options: Parameters<Browser['newContext']>[0] = {}): Promise<Page> {
  const context = await browser.newContext({ baseURL: url, httpCredentials: { username: 'ada', password: secrets.password }, ...options });
  context.setDefaultTimeout(30_000 * patience());
  return context.newPage();
}
