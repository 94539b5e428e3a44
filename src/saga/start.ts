// Starts a saga by inserting its row. The first process that sees the row enqueues it: a transactional outbox without a
// second table.
import { randomUUID } from 'node:crypto';
import type { Database } from '../platform/db.ts';
import { isOfOurDatabase } from '../platform/db.ts';
import type { JsonObject } from '../platform/json.ts';
import { isJsonObject, parseJson } from '../platform/json.ts';
import type { KeyRing } from '../platform/key-ring.ts';
import { emptyKeyRing } from '../platform/key-ring.ts';
import { IMPATIENT_MS, LockHeldError, PATIENT_MS } from '../platform/lock-wait.ts';
import { currentTraceparent } from '../platform/tracing.ts';
import type { Deployment, Refusal, SagaDefinition } from './definition.ts';
import { stepsFor } from './names.ts';
import type { NextJob, SagaPriority } from './saga.ts';
import { nextJobOf, sagaPriorities } from './saga.ts';
import type { FieldProblem } from '../platform/request-problems.ts';
import { problemsOf } from '../platform/request-problems.ts';
import { isLongerThan, shorten } from '../platform/text.ts';
import { textOfThrown } from '../platform/thrown.ts';
import { fieldsWithoutStep } from './carried-out.ts';
import { mayHaveBeenApplied } from './commit.ts';
import { givenInput, plainInput, showsFields } from './given-input.ts';
import type { LeavingStep } from './leftovers.ts';
import { excessOf } from './input-limits.ts';
import { findByIdempotencyKey, findRerun, insertSaga } from './new-saga.ts';
import { IdempotencyConflictError, IdempotencyKeyTakenError, InvalidRequestError, KeyInProgressError, MAX_KEY_LENGTH, StartRefusedError } from './start-errors.ts';
import { loadSaga } from './store.ts';
import type { NewSaga } from './new-saga.ts';
import type { Asked } from './same-request.ts';
import { differenceFrom } from './same-request.ts';
import { filledSecrets, markedFields, movedSecrets, sealInput, secretsOf } from './secrets.ts';
import type { SagaWords } from './saga-words.ts';

/**
 * Who starts a saga, as proven by credentials. `mayRead`: may see the sagas of others. `isShared`: several callers share
 * this name and cannot be told apart.
 */
export type Starter = Readonly<{ name: string; mayRead: boolean; isShared?: true }>;

/**
 * A caller's request. `requestedBy` is the caller's claim; `starter` is proven; if omitted, the role of the database
 * connection. `rerunOf`: the saga that the new one repeats; at most one saga repeats it (see rerun.ts). `priority`: among
 * the caller's own sagas; normal by default. `formerKey`: the idempotency key as earlier versions stored it over HTTP, where
 * that differs: a saga that has it counts as one with this key. `keyWait`: `none` if the caller comes back by itself while
 * another transaction holds the key; by default, it is waited for up to a second.
 */
export type StartRequest = Readonly<{ name: string; input: unknown; idempotencyKey?: string | undefined; formerKey?: string | undefined; requestedBy?: string | undefined; starter?: Starter | undefined; rerunOf?: string | undefined; priority?: SagaPriority | undefined; keyWait?: 'none' }>;

export type StartedSaga = Readonly<{
  sagaId: string;
  /** The job to enqueue; null if a saga with this idempotency key already existed and has its jobs. */
  firstJob: NextJob | null;
}>;

/**
 * What is needed to start a saga: its definition without what its steps do. Of its words, `rolledBack` decides whether a
 * rerun must be confirmed, together with what its steps say of `remains`.
 */
type StartableSaga = Omit<SagaDefinition<never>, 'steps' | 'words'> & Readonly<{ steps: readonly StartableStep[]; words?: Partial<Pick<SagaWords, 'rolledBack'>> }>;

type StartableStep = LeavingStep & Readonly<{ onlyWith?: string; carriedOutBy?: Readonly<Record<string, string>> }>;

/** The sagas that can be started, by name. A catalog is one of these. */
export type StartableSagas = Readonly<Record<string, StartableSaga>>;

// One in 4 billion pairs of random ids shares the first 8 characters. Five in a row do not happen.
const MAX_ID_ATTEMPTS = 5;
const MAX_SHOWN_NAME = 100;
const MOVED_SECRET = "is a secret, but the saga's schema moves its text to another field, which would be stored in plain text; its author has to name that field in `secrets`";
const MARK = 'looks like the mark that stands in the place of a secret; expected the value itself';
const ILL_FORMED = 'expected text without broken surrogates';

/**
 * Starts a saga, or finds the one that the same request started before.
 *
 * @param reconcileGraceMs how long the caller has to enqueue the first job before the reconciler does; 0: it need not
 * @param keyRing seals what is secret; without keys, a request with a secret is refused
 * @param deployment what this process knows of it, for definitions that refuse what cannot work
 * @throws {InvalidRequestError} for an unknown saga, or an input that its schema refuses; a repeated key still finds its saga
 * @throws {IdempotencyConflictError} for a key that was used with another input
 * @throws {IdempotencyKeyTakenError} for a key that another caller used, if the starter may not read
 * @throws {KeyInProgressError} for a key that another transaction used and has not committed; not in a caller's transaction,
 *   which waits for the other
 * @throws {StartRefusedError} if the saga's definition refuses to start it at the moment; a repeated key still finds its
 *   saga
 */
export async function startSaga(
  db: Pick<Database, 'run'>,
  catalog: StartableSagas,
  request: StartRequest,
  reconcileGraceMs: number,
  keyRing: KeyRing = emptyKeyRing,
  deployment: Deployment = {},
): Promise<StartedSaga> {
  const checked = checkRequest(catalog, request, keyRing);
  const repeated = async () => findRepeated(db, request, checked.asked, keyRing);
  if (checked.kind === 'refused') {
    const known = checked.mayBeRepeated ? await repeated() : null;
    if (known === null) throw new InvalidRequestError(checked.problems);
    return known;
  }
  const { asked, steps, input, given } = checked;
  const refusal = await refusalOf(catalog[request.name], db, input, deployment);
  // No unique index finds a former key, so it is looked up first.
  const known = refusal !== null || request.formerKey !== undefined ? await repeated() : null;
  if (known !== null) return known;
  if (refusal !== null) throw new StartRefusedError(refusal);
  for (let attempt = 1; attempt <= MAX_ID_ATTEMPTS; attempt += 1) {
    const id = randomUUID();
    const saga = { id, name: request.name, steps, ...sealInput(keyRing, id, input, asked.secrets), given, idempotencyKey: request.idempotencyKey ?? null, requestedBy: request.requestedBy ?? null, startedBy: request.starter?.name ?? null, priority: request.priority ?? 'normal', traceparent: currentTraceparent(), rerunOf: request.rerunOf ?? null };
    if (await insertOnce(db, saga, reconcileGraceMs, request.keyWait)) return { sagaId: saga.id, firstJob: firstJobOf(saga) };
    const rerun = request.rerunOf === undefined ? null : await findRerun(db, request.rerunOf);
    if (rerun !== null) return { sagaId: rerun, firstJob: null };
    const existing = await repeated();
    if (existing !== null) return existing;
  }
  throw new Error(`no free saga id in ${MAX_ID_ATTEMPTS} attempts`);
}

/**
 * Finds the saga that the same request started before; null: the request has no key, or nobody used it.
 *
 * @throws {IdempotencyConflictError} {IdempotencyKeyTakenError} if the key was used for something else
 */
async function findRepeated(db: Pick<Database, 'run'>, { name, idempotencyKey, formerKey, starter }: StartRequest, asked: Asked, keyRing: KeyRing): Promise<StartedSaga | null> {
  const key = idempotencyKey ?? null;
  const existing = key === null ? null : await findByIdempotencyKey(db, { key, former: formerKey ?? null }, starter?.name ?? null);
  if (key === null || existing === null) return null;
  if (!existing.isOwn && starter?.mayRead === false) throw new IdempotencyKeyTakenError(key);
  if (existing.name !== name) throw new IdempotencyConflictError(key, existing.id, `for another saga, ${existing.name}`);
  const difference = differenceFrom(keyRing, asked, existing, { revealsSecrets: existing.sameStarter && starter?.isShared !== true });
  if (difference !== null) throw new IdempotencyConflictError(key, existing.id, difference);
  return { sagaId: existing.id, firstJob: null };
}

/** If the reply is lost, the row shows whether it was inserted. A caller that retries must not get a second saga. */
async function insertOnce(db: Pick<Database, 'run'>, saga: NewSaga, reconcileGraceMs: number, keyWait: StartRequest['keyWait']): Promise<boolean> {
  try {
    return await insertSaga(db, saga, reconcileGraceMs, keyWait === 'none' ? IMPATIENT_MS : PATIENT_MS);
  } catch (error) {
    if (error instanceof LockHeldError) throw new KeyInProgressError(saga.idempotencyKey ?? '', error);
    if (mayHaveBeenApplied(error) && (await loadSaga(db, saga.id)) !== null) return true;
    throw error;
  }
}

function firstJobOf(saga: NewSaga): NextJob | null {
  return nextJobOf({ ...saga, status: 'pending', cursor: 0, revision: 0, attempt: 0, context: {} });
}

/** `mayBeRepeated`: it was refused for its name or its input alone. An earlier version may have accepted both. */
type CheckedRequest = Readonly<{ asked: Asked }> &
  (Readonly<{ kind: 'accepted'; steps: string[]; input: JsonObject; given: JsonObject | null }> | Readonly<{ kind: 'refused'; problems: readonly FieldProblem[]; mayBeRepeated: boolean }>);

function checkRequest(catalog: StartableSagas, request: StartRequest, keyRing: KeyRing): CheckedRequest {
  const definition = Object.hasOwn(catalog, request.name) ? catalog[request.name] : undefined;
  const checked = definition === undefined ? { input: null, problems: [unknownName(catalog, request.name)] } : checkInput(definition, request.input, keyRing);
  const problems = problemsBeside(request);
  const plain = plainInput(request.input);
  const asked = { input: checked.input, given: plain, secrets: secretsOf(definition ?? {}), showsFields: definition === undefined || showsFields(definition.input) };
  if (definition === undefined || checked.input === null || problems.length > 0) {
    // No saga can have an input beyond the limits.
    const mayBeRepeated = problems.length === 0 && plain !== null && excessOf(request.input) === null;
    return { kind: 'refused', asked, problems: definition === undefined ? checked.problems : [...problems, ...checked.problems], mayBeRepeated };
  }
  return { kind: 'accepted', asked, steps: stepsFor(definition, checked.input), input: checked.input, given: plain === null ? null : givenInput(definition, plain, checked.input) };
}

function unknownName(catalog: StartableSagas, name: string): FieldProblem {
  return { field: 'name', message: `no saga is called ${JSON.stringify(shorten(name, MAX_SHOWN_NAME))}; expected one of ${Object.keys(catalog).join(', ')}` };
}

/** What is wrong in a request beside its name and its input. */
function problemsBeside({ idempotencyKey, requestedBy, priority }: StartRequest): FieldProblem[] {
  const isPriority = (priority ?? null) === null || sagaPriorities.some((known) => known === priority);
  return [
    ...textProblems('idempotencyKey', idempotencyKey, { min: 1, expected: `expected 1 to ${MAX_KEY_LENGTH} characters` }),
    ...textProblems('requestedBy', requestedBy, { min: 0, expected: `expected at most ${MAX_KEY_LENGTH} characters` }),
    ...(isPriority ? [] : [{ field: 'priority', message: `expected ${sagaPriorities.join(', ')}` }]),
  ];
}

/** Callers in plain JavaScript may pass anything, and null for what they leave out. */
function textProblems(field: string, given: unknown, { min, expected }: { min: number; expected: string }): FieldProblem[] {
  if (given === undefined || given === null) return [];
  if (typeof given !== 'string') return [{ field, message: 'expected text' }];
  if (given.length < min || isLongerThan(given, MAX_KEY_LENGTH) || hasNul(given)) return [{ field, message: expected }];
  return given.isWellFormed() ? [] : [{ field, message: ILL_FORMED }];
}

/** Validates an input against its schema. `input` is the parsed input; null if it is invalid. */
export function checkInput(
  definition: Pick<StartableSaga, 'input' | 'secrets' | 'steps'>,
  given: unknown,
  keyRing: KeyRing,
): { input: JsonObject | null; problems: FieldProblem[] } {
  const excess = excessOf(given);
  if (excess !== null) return { input: null, problems: [{ field: 'input', message: excess }] };
  const marked = markedFields(given);
  if (marked.length > 0) return { input: null, problems: marked.map((field) => ({ field, message: MARK })) };
  const parsed = parseInput(definition, given);
  if (!parsed.success) return { input: null, problems: parsed.problems };
  const ignored = fieldsWithoutStep(definition.steps, parsed.data);
  if (ignored.length > 0) return { input: null, problems: ignored };
  const { secrets = [] } = definition;
  const notText = secrets.filter((field) => typeof (parsed.data[field] ?? '') !== 'string');
  if (notText.length > 0) return { input: null, problems: notText.map((field) => ({ field, message: 'expected text: a secret is sealed as text' })) };
  const moved = secrets.length === 0 ? [] : movedSecrets(secrets, plainInput(given) ?? {}, parsed.data);
  if (moved.length > 0) return { input: null, problems: moved.map((field) => ({ field, message: MOVED_SECRET })) };
  const filled = filledSecrets(secretsOf(definition), parsed.data);
  if (filled.length === 0 || keyRing.keys.length > 0) return { input: parsed.data, problems: [] };
  const message = 'cannot be encrypted: set ARCADIA_ENCRYPTION_KEYS (or keyRing of the client) where you start sagas and in every worker';
  return { input: null, problems: filled.map((field) => ({ field, message })) };
}

type ParsedInput = Readonly<{ success: true; data: JsonObject } | { success: false; problems: FieldProblem[] }>;

/** A schema that fails itself, or makes what is no JSON, refuses the input: nobody would be told of it later. */
function parseInput({ input: schema }: Pick<StartableSaga, 'input'>, given: unknown): ParsedInput {
  try {
    const { data, error } = schema.safeParse(given);
    if (error !== undefined) return { success: false, problems: problemsOf(error.issues) };
    if (isJsonObject(parseJson(JSON.stringify(data)))) return { success: true, data };
    return { success: false, problems: [{ field: 'input', message: "cannot be stored: the saga's schema makes something else of it than a JSON object, which its author has to mend" }] };
  } catch (error) {
    return { success: false, problems: [{ field: 'input', message: `cannot be checked: the saga's schema failed, which its author has to mend (${textOfThrown(error)})` }] };
  }
}

/** A definition's own check that fails refuses the start, unless our database is out of reach: then nothing is decided. */
async function refusalOf(definition: StartableSaga | undefined, db: Pick<Database, 'run'>, input: JsonObject, deployment: Deployment): Promise<Refusal | null> {
  try {
    return (await definition?.refusal?.(db, input, deployment)) ?? null;
  } catch (error) {
    if (isOfOurDatabase(error)) throw error;
    return { code: 'refusal_failed', message: `the saga's own check whether it can be started failed, which its author has to mend (${textOfThrown(error)})` };
  }
}

/** Postgres cannot store NUL in text or jsonb. */
function hasNul(text: string): boolean {
  return text.includes('\0');
}
