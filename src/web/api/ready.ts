// POST /v1/ready/:token: a droplet reports that its user data ran, or failed. The token in the path is the credential. The script
// in its user data sends plain text, as a shell can write it; JSON and forms are taken too.
import { z } from 'zod';
import type { App } from '../app.ts';
import type { InventoryPort } from '../ports.ts';
import { Problem } from '../problems.ts';
import { answers } from './answers.ts';

const MAX_BODY_BYTES = 64 * 1024;

const reportBody = z
  .strictObject({
    status: z.enum(['ok', 'failed'], 'expected ok or failed'),
    log: z.string().optional().describe('the last lines of the log; the end of it is kept'),
  })
  .describe('As text/plain: the status in the first line, the log in all others.');

const reportParams = z.strictObject({ token: z.string() });
const reportAnswer = z.strictObject({ result: z.literal('accepted') });

/** Adds the route, with parsers of its own: nowhere else is a body read that a form could send. */
export function addReadyRoute(app: App, { report }: Pick<InventoryPort, 'report'>): void {
  void app.register(async (scope: App) => {
    await Promise.resolve();
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'application/octet-stream']) {
      scope.addContentTypeParser(type, { parseAs: 'string', bodyLimit: MAX_BODY_BYTES }, (_request, body, done) => done(null, reportOf(String(body))));
    }
    scope.post(
      '/v1/ready/:token',
      {
        bodyLimit: MAX_BODY_BYTES,
        config: { needs: 'nothing', isForDroplets: true },
        schema: {
          operationId: 'reportReady',
          summary: 'Report from a droplet that its user data ran',
          description: 'The URL is in the user data of a droplet whose saga has `ready: {callback: true}`. It is good for one report. 410: it was used, or nobody waits for it any more.',
          tags: ['sagas'],
          security: [],
          params: reportParams,
          body: reportBody,
          response: answers(200, reportAnswer),
        },
      },
      async (request) => {
        const { status, log = '' } = request.body;
        const { kind } = await report(request.params.token, { answer: status, log });
        if (kind === 'accepted') return { result: kind };
        if (kind === 'unknown') throw new Problem('callback_unknown', 'no droplet has this callback');
        throw new Problem('callback_spent', kind === 'used' ? 'this callback was used before' : 'nobody waits for this callback any more');
      },
    );
  });
}

/** Parses a form, or text whose first line is the status. The schema reports anything else. */
function reportOf(text: string): Record<string, string> {
  const form = new URLSearchParams(text);
  if (/^(status|log)=/.test(text)) return Object.fromEntries(form);
  const [status = '', ...log] = text.split('\n');
  return { status: status.trim(), log: log.join('\n') };
}
