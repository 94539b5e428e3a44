// A browser for the tests of the pages: the Chromium of the system, without a window.
import { accessSync, constants } from 'node:fs';
import { chromium } from 'playwright-core';
import type { Browser } from 'playwright-core';

const names = ['chromium', 'chromium-browser', 'google-chrome'];

/** A name that leads to this machine and that the browser does not take for it: what it knows of plain HTTP elsewhere. */
export const REMOTE_NAME = 'arcadia.test';

/**
 * Starts the browser.
 *
 * @throws {Error} when there is none on the PATH
 */
export async function launchBrowser(): Promise<Browser> {
  return chromium.launch({
    executablePath: findBrowser(),
    args: [
      '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync', `--host-resolver-rules=MAP ${REMOTE_NAME} 127.0.0.1`,
    ],
  });
}

function findBrowser(): string {
  const folders = (process.env['PATH'] ?? '').split(':');
  for (const path of names.flatMap((name) => folders.map((folder) => `${folder}/${name}`))) {
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Not there: the next one.
    }
  }
  throw new Error(`no ${names.join(', ')} on the PATH: script/setup installs it`);
}
