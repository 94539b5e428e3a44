// Starts a rolled-back saga again with the same input. The new saga records which one it repeats. A saga is repeated
// once: a second request returns the same new saga. If the new saga is rolled back too, it can be repeated in turn. If the
// rollback may have left something, the caller must confirm that the new saga may start beside it.
import type { Deployment } from './definition.ts';
import type { Database } from '../platform/db.ts';
import type { JsonObject } from '../platform/json.ts';
import type { KeyRing } from '../platform/key-ring.ts';
import type { ActionResult } from './cancel-and-retry.ts';
import type { Saga, SagaStatus } from './saga.ts';
import { filledSecrets, markedFields, secretsOf } from './secrets.ts';
import type { StartableSagas, Starter } from './start.ts';
import { startSaga } from './start.ts';
import { InvalidRequestError } from './start-errors.ts';
import { loadGivenInput } from './new-saga.ts';
import { hasMarks } from './refused-input.ts';
import { loadSaga } from './store.ts';
import { leftoversOf, wordsIn } from './words.ts';

/**
 * Which saga to run again, and the caller: see {@link StartRequest}. `secrets`: the values of its secret fields, by
 * field; the saga's own were erased at its end. `despiteLeftovers`: a person has checked what the rollback may have left.
 */
export type RerunRequest = Readonly<{ sagaId: string; secrets?: Readonly<Record<string, string>> | undefined; despiteLeftovers?: boolean | undefined; requestedBy?: string | undefined; starter?: Starter | undefined }>;

/**
 * The result of the request. `accepted` and `already` carry the new saga; `refused` carries the one to repeat. `missing`:
 * the secret fields that must be provided again. `leftovers`: what the rollback may have left, as a sentence, if the rerun
 * must be confirmed with `despiteLeftovers`.
 */
export type RerunResult = Exclude<ActionResult, { kind: 'refused' }> | (Extract<ActionResult, { kind: 'refused' }> & Readonly<{ missing: readonly string[]; leftovers: string | null }>);

const whyNot: Readonly<Record<Exclude<SagaStatus, 'compensated'>, string>> = {
  pending: 'it has not started yet',
  running: 'it is still running',
  completed: 'it is completed',
  compensating: 'it is still being rolled back',
  stuck: 'it needs attention: fix the cause, then retry it',
};

/**
 * Starts a rolled-back saga again.
 *
 * @param reconcileGraceMs how long the caller has to enqueue the first job before the reconciler does; 0: it need not
 * @throws {InvalidRequestError} for a secret that the saga did not have, or an input that this version no longer accepts
 * @throws {StartRefusedError} if the saga's definition refuses to start it at the moment
 */
export async function rerunSaga(db: Pick<Database, 'run'>, catalog: StartableSagas, request: RerunRequest, reconcileGraceMs: number, keyRing: KeyRing, deployment: Deployment = {}): Promise<RerunResult> {
  const { sagaId, secrets = {}, despiteLeftovers = false, requestedBy, starter } = request;
  const saga = await read(db, sagaId);
  if (saga === null) return { kind: 'not_found' };
  if (saga.rerunAs !== null) return already(db, saga.rerunAs);
  if (saga.status !== 'compensated') return refuse(saga, `saga ${saga.id} cannot be run again: ${whyNot[saga.status]}. Only a saga that was rolled back can`);
  const definition = Object.hasOwn(catalog, saga.name) ? catalog[saga.name] : undefined;
  if (definition === undefined) return refuse(saga, `saga ${saga.id} cannot be run again: ${saga.name} is not among the sagas known here. Pass its definition to the client in the option sagas, or run the command or the web with the app that has it`);
  const leftovers = despiteLeftovers ? null : leftoversOf(wordsIn(catalog)(saga), saga);
  if (leftovers !== null) return refuse(saga, describeLeftovers(saga, leftovers), { leftovers });
  const given = (await loadGivenInput(db, saga.id)) ?? saga.input;
  if (saga.error?.code === 'invalid_request' && hasMarks(given)) return refuse(saga, `saga ${saga.id} cannot be run again: its request was refused, and the values of fields that were unknown then are not kept. Start a new saga`);
  const erased = erasedSecrets(saga);
  const known = [...erased, ...markedFields(given), ...filledSecrets(secretsOf(definition), saga.input)];
  const unknown = Object.keys(secrets).filter((field) => !known.includes(field));
  if (unknown.length > 0) throw new InvalidRequestError(unknown.map((field) => ({ field: `secrets.${field}`, message: `saga ${saga.id} had no such secret` })));
  const missing = erased.filter((field) => secrets[field] === undefined);
  if (missing.length > 0) return refuse(saga, describeMissing(missing), { missing });
  const input = { ...withoutMarks(given), ...secrets };
  const started = await startSaga(db, catalog, { name: saga.name, input, requestedBy, starter, rerunOf: saga.id, priority: saga.priority }, reconcileGraceMs, keyRing, deployment);
  if (started.firstJob === null) return already(db, started.sagaId);
  return { kind: 'accepted', saga: await existing(db, started.sagaId), next: started.firstJob };
}

/**
 * Returns the names of a saga's secrets that are erased by the time it is rolled back, whatever its definition says today:
 * only their marks are left.
 */
export function erasedSecrets({ input }: Pick<Saga, 'input'>): string[] {
  return markedFields(input);
}

function withoutMarks(input: JsonObject): JsonObject {
  const marked = markedFields(input);
  return Object.fromEntries(Object.entries(input).filter(([field]) => !marked.includes(field)));
}

function describeMissing(missing: readonly string[]): string {
  const [what, were, it] = missing.length === 1 ? ['a secret', 'was', 'it'] : ['secrets', 'were', 'them'];
  return `${missing.join(' and ')} ${were} erased when the saga was rolled back, because arcadia-cloud keeps ${what} only as long as needed. Give ${it} again to run the saga again`;
}

/** Says what a rollback may have left, and what to do before the saga runs again. */
export function askToCheck(leftovers: string): string {
  return `${leftovers} When you have checked, run this saga again by itself and confirm it`;
}

function describeLeftovers({ id }: Saga, leftovers: string): string {
  return `saga ${id} was not run again, because its rollback may have left something. ${askToCheck(leftovers)}`;
}

function refuse(saga: Saga, why: string, { missing = [], leftovers = null }: { missing?: readonly string[]; leftovers?: string | null } = {}): RerunResult {
  return { kind: 'refused', saga, why, missing, leftovers };
}

async function already(db: Pick<Database, 'run'>, sagaId: string): Promise<RerunResult> {
  return { kind: 'already', saga: await existing(db, sagaId) };
}

async function existing(db: Pick<Database, 'run'>, sagaId: string): Promise<Saga> {
  const saga = await read(db, sagaId);
  if (saga === null) throw new Error(`saga ${sagaId} is gone: its retention is over`);
  return saga;
}

async function read(db: Pick<Database, 'run'>, sagaId: string): Promise<Saga | null> {
  return (await loadSaga(db, sagaId))?.saga ?? null;
}
