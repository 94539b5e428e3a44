// Admission: the one place where a saga that stands in Postgres unchecked (started by SQL, which knows no schemas) is
// held against its schema and has its secrets sealed, by the worker that runs it first.
import type { KeyRing } from '../platform/key-ring.ts';
import { sentenceOf } from '../platform/request-problems.ts';
import type { SagaDefinition } from './definition.ts';
import type { Saga } from './saga.ts';
import { checkInput } from './start.ts';
import type { Outcome } from './transition.ts';
import { sealInput, secretsOf } from './secrets.ts';

/**
 * Says how an unchecked saga starts: with its input as the schema has it, or not at all.
 *
 * @returns `rejected` names the first ten fields that are wrong
 */
export function admit<Deps>(definition: Pick<SagaDefinition<Deps>, 'input' | 'secrets'>, saga: Pick<Saga, 'id' | 'input'>, keyRing: KeyRing): Extract<Outcome, { kind: 'started' | 'rejected' }> {
  const { input, problems } = checkInput(definition, saga.input, keyRing);
  if (input !== null) return { kind: 'started', ...sealInput(keyRing, saga.id, input, secretsOf(definition)) };
  return { kind: 'rejected', error: { code: 'invalid_request', message: sentenceOf(problems), retryable: false } };
}
