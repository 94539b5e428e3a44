// Droplets of the sandbox run no user data, so nothing would ever call the URL of `ready.callback`. Here, `dev` and the
// demo do what cloud-init does on a real droplet.
import type { Sandbox } from '../sandbox/server.ts';

const LOOK_EVERY_MS = 1_000;
const ANSWER_WITHIN_MS = 5_000;

/**
 * Reports for each droplet of the sandbox that is active and has a callback in its user data, once.
 *
 * @param publicUrl the address in the callbacks; no other one is ever called
 * @returns ends the reports
 */
export function reportReady(sandbox: Pick<Sandbox, 'state' | 'userData'>, publicUrl: string): () => Promise<void> {
  const told = new Set<number>();
  const look = async (): Promise<void> => {
    for (const { id } of sandbox.state({ alive: true }).filter(({ id, status }) => status === 'active' && !told.has(id))) {
      const url = callbackIn(sandbox.userData(id) ?? '', publicUrl);
      if (url === null || (await report(url))) told.add(id);
    }
  };
  let looking = Promise.resolve();
  const timer = setInterval(() => {
    looking = looking.then(look);
  }, LOOK_EVERY_MS);
  return async () => {
    clearInterval(timer);
    await looking;
  };
}

/** Finds the callback that arcadia-cloud added to user data. */
export function callbackIn(userData: string, publicUrl: string): string | null {
  const begin = userData.indexOf(`url='${publicUrl}/v1/ready/`);
  return begin === -1 ? null : (/^url='([^'\s]+)'/.exec(userData.slice(begin))?.[1] ?? null);
}

/** Whether `web` took or refused the report. The script on a droplet tries again after a 404, but no proxy stands in between here. */
async function report(url: string): Promise<boolean> {
  try {
    const { status } = await fetch(url, { method: 'POST', headers: { 'content-type': 'text/plain' }, body: 'ok\n', signal: AbortSignal.timeout(ANSWER_WITHIN_MS) });
    return status < 500;
  } catch {
    return false;
  }
}
