// Admission of sagas whose input nothing has checked yet: SQL can start a saga but knows no schemas. The worker that runs
// such a saga first validates its input and seals its secrets here.
import { isDeepStrictEqual } from 'node:util';
import type { JsonObject } from '../platform/json.ts';
import type { KeyRing } from '../platform/key-ring.ts';
import { sentenceOf } from '../platform/request-problems.ts';
import type { SagaDefinition } from './definition.ts';
import type { Saga } from './saga.ts';
import { givenInput } from './given-input.ts';
import { stepsFor } from './names.ts';
import { withoutUnknownFields } from './refused-input.ts';
import { checkInput } from './start.ts';
import type { Outcome } from './transition.ts';
import { eraseSecrets, sealInput, secretsOf } from './secrets.ts';

/**
 * Decides how an unchecked saga starts: with its validated input, or not at all.
 *
 * @param erasedLater secrets that the statement which writes a refusal erases
 * @returns `rejected` names the first ten invalid fields
 */
export function admit<Deps>(definition: Pick<SagaDefinition<Deps>, 'input' | 'secrets' | 'steps'>, saga: Pick<Saga, 'id' | 'input' | 'steps' | 'idempotencyKey'>, keyRing: KeyRing, erasedLater: readonly string[] = []): Extract<Outcome, { kind: 'started' | 'rejected' }> {
  const { input, problems } = checkInput(definition, saga.input, keyRing);
  if (input !== null) return { kind: 'started', ...sealInput(keyRing, saga.id, input, secretsOf(definition)), given: givenInput(definition, saga.input, input), steps: stepsOf(definition, saga, input) };
  return { kind: 'rejected', error: { code: 'invalid_request', message: sentenceOf(problems), retryable: false }, ...keptOf(definition, saga, erasedLater) };
}

/** With an idempotency key, a repeated request has to find its saga by what was given. Nobody else needs that. */
function keptOf<Deps>(definition: Pick<SagaDefinition<Deps>, 'input' | 'secrets'>, saga: Pick<Saga, 'input' | 'idempotencyKey'>, erasedLater: readonly string[]): { input?: JsonObject; given?: JsonObject } {
  const secrets = (definition.secrets ?? []).filter((field) => !erasedLater.includes(field));
  const given = eraseSecrets(saga.input, secrets);
  const input = eraseSecrets(withoutUnknownFields(definition, saga.input), secrets);
  if (input === saga.input) return {};
  return saga.idempotencyKey === null ? { input } : { input, given };
}

/**
 * The steps for the validated input: SQL left out the optional ones by an input without defaults. A saga whose steps are
 * those of another version keeps them.
 */
function stepsOf<Deps>(definition: Pick<SagaDefinition<Deps>, 'steps'>, saga: Pick<Saga, 'input' | 'steps'>, input: JsonObject): readonly string[] {
  return isDeepStrictEqual(saga.steps, stepsFor(definition, saga.input)) ? stepsFor(definition, input) : saga.steps;
}
