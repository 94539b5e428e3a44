// `rerun`: starts a rolled-back saga anew, and follows the new one.
import { unlessAborted } from '../platform/deadline.ts';
import type { App } from '../saga/app.ts';
import type { RerunResult } from '../saga/rerun.ts';
import { complain } from './output.ts';
import { requester } from './requester.ts';
import type { FollowOptions } from './start-and-follow.ts';
import { startAndFollow } from './start-and-follow.ts';
import { requireSagaId, resolveSagaId } from './saga-id.ts';
import { readText } from './read-text.ts';
import { UsageError } from './usage-error.ts';

export async function rerunCommand(app: App, sagaId: string, options: FollowOptions & { userDataFile?: string; secretFile?: string[]; despiteLeftovers?: boolean }, stop: AbortSignal): Promise<number> {
  requireSagaId(sagaId);
  const { userDataFile, secretFile = [], despiteLeftovers } = options;
  const secrets = await unlessAborted(stop, readSecrets([...(userDataFile === undefined ? [] : [`user_data=${userDataFile}`]), ...secretFile]));
  try {
    return await startAndFollow(app, `running saga ${sagaId} again`, async (client) => {
      const id = await resolveSagaId(client, sagaId);
      return toNewSaga(id, await client.rerun(id, requester(), { secrets, despiteLeftovers, sagas: app.catalog }));
    }, options, stop);
  } catch (error) {
    if (!(error instanceof NotRepeated)) throw error;
    complain(error.message);
    return 1;
  }
}

/** There is no new saga to follow. */
class NotRepeated extends Error {}

function toNewSaga(sagaId: string, answered: RerunResult): { sagaId: string } {
  switch (answered.kind) {
    case 'accepted':
      return { sagaId: answered.saga.id };
    case 'already':
      complain(`saga ${sagaId} was run again before, as saga ${answered.saga.id}${answered.saga.status === 'compensated' ? `, which was rolled back too. To try once more, run \`arcadia rerun ${answered.saga.id}\`` : ''}`);
      return { sagaId: answered.saga.id };
    case 'refused':
      throw new NotRepeated([answered.why, optionsFor(answered)].filter((part) => part !== '').join(': '));
    case 'not_found':
      throw new NotRepeated(`saga ${sagaId} not found`);
    default:
      return answered satisfies never;
  }
}

function optionsFor({ missing, leftovers }: Extract<RerunResult, { kind: 'refused' }>): string {
  return leftovers === null ? missing.map(optionFor).join(' ') : '--despite-leftovers';
}

function optionFor(field: string): string {
  return field === 'user_data' ? '--user-data-file <file>' : `--secret-file ${field}=<file>`;
}

async function readSecrets(given: readonly string[]): Promise<Record<string, string>> {
  const secrets: Record<string, string> = {};
  for (const one of given) {
    const [field = '', ...rest] = one.split('=');
    const file = rest.join('=');
    if (field === '' || file === '') throw new UsageError(`--secret-file: expected <field>=<file>, such as user_data=init.yaml; found ${JSON.stringify(one)}`);
    try {
      secrets[field] = await readText(file);
    } catch (error) {
      throw new UsageError(`cannot read the file for ${field}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  return secrets;
}
