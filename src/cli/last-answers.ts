// Why rollbacks failed. The row of a saga says why it was rolled back, and its last event what stopped that.
import type { Client } from '../client/client.ts';
import { shortTextOf } from '../platform/text.ts';
import type { Saga } from '../saga/saga.ts';
import { isStuckForward } from '../saga/saga.ts';

/** The last answers by saga id, for those of the sagas whose rollback failed. */
export type LastAnswers = ReadonlyMap<string, string>;

export const noLastAnswers: LastAnswers = new Map();

// Each is read by itself. A list of more is not read to its end.
const MOST_READ = 100;

/** Reads those of the first hundred. */
export async function lastAnswersOf(client: Pick<Client, 'events'>, sagas: readonly Saga[]): Promise<LastAnswers> {
  const failed = sagas.filter((saga) => saga.status === 'stuck' && !isStuckForward(saga)).slice(0, MOST_READ);
  const answers = await Promise.all(failed.map(async ({ id, revision }): Promise<[string, string]> => [id, shortTextOf((await client.events(id, revision - 1)).at(-1)?.detail['message'])]));
  return new Map(answers.filter(([, answer]) => answer !== ''));
}
