// The load: other backends, as they would behave. They ask at a steady rate, ask again with the same key when they got
// no answer, cancel, destroy, and contradict themselves.
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { Random } from '../../src/sandbox/random.ts';
import { seededRandom } from '../../src/sandbox/random.ts';
import type { DropletLine } from '../../src/sandbox/server.ts';
import { isAtRest } from '../../src/saga/saga.ts';
import type { Saga } from '../../src/saga/saga.ts';
import type { ActionResult } from '../../src/saga/cancel-and-retry.ts';
import type { Foreign, Request } from './requests.ts';
import { drawRequest } from './requests.ts';
import type { Stage } from './stage.ts';

/** One request and what the client said to it. */
export type Played = {
  readonly request: Request;
  /** Ids that the calls with its key were answered with: one, if all is well. */
  readonly sagaIds: Set<string>;
  cancel: ActionResult['kind'] | null;
  /** What a call with the same key and another input was answered. */
  contradiction: 'refused' | 'accepted' | null;
  destroySagaId: string | null;
};

export type Load = Readonly<{
  played: readonly Played[];
  foreign: readonly DropletLine[];
  /** Calls that failed and were made again: Postgres was away. */
  repeatedCalls(): number;
  /** What else the client threw: it should not have. */
  surprises: readonly string[];
}>;

const RETRY_EVERY_MS = 300;
const LOOK_EVERY_MS = 1_000;

/** Plays the load until `durationMs` is over and everything that was begun has ended; gives up at `signal`. */
export function startLoad(
  stage: Stage,
  options: { durationMs: number; sagasPerMinute: number; seed: number; signal: AbortSignal },
): Load & { done: Promise<void> } {
  const played: Played[] = [];
  const foreign: DropletLine[] = [];
  const surprises: string[] = [];
  let repeated = 0;

  /** Calls until there is an answer, as a careful backend would. */
  const insist = async <T>(call: () => Promise<T>): Promise<T> => {
    for (;;) {
      options.signal.throwIfAborted();
      try {
        return await call();
      } catch (error) {
        if (isAnswer(error)) throw error;
        repeated += 1;
        await delay(RETRY_EVERY_MS, undefined, { signal: options.signal });
      }
    }
  };
  const play = (request: Request) => playRequest(request, { stage, insist, played, foreign, signal: options.signal });
  const done = (async () => {
    const random: Random = seededRandom(options.seed + 1);
    const everyMs = 60_000 / options.sagasPerMinute;
    const startedAt = performance.now();
    const playing: Promise<void>[] = [];
    for (let index = 0; index * everyMs < options.durationMs; index += 1) {
      await delay(Math.max(0, startedAt + index * everyMs - performance.now()));
      const playingOne = play(drawRequest(index, random)).catch((error: unknown) => {
        surprises.push(`request ${index}: ${error instanceof Error ? `${error.name}: ${error.message}` : String(error)}`);
      });
      playing.push(playingOne);
    }
    await Promise.all(playing);
  })();
  return { played, foreign, repeatedCalls: () => repeated, surprises, done };
}

type Play = Readonly<{
  stage: Stage;
  insist<T>(call: () => Promise<T>): Promise<T>;
  played: Played[];
  foreign: DropletLine[];
  signal: AbortSignal;
}>;

async function playRequest(request: Request, play: Play): Promise<void> {
  const { client } = play.stage;
  const one: Played = { request, sagaIds: new Set(), cancel: null, contradiction: null, destroySagaId: null };
  play.played.push(one);
  const isAfter = request.foreign === 'same_saga8';
  if (request.foreign !== null && !isAfter) addForeign(request.foreign, request.input.name, randomUUID(), play);

  const provision = async () => (await play.insist(() => client.provisionDroplet(request.input, { idempotencyKey: request.key, requestedBy: 'chaos' }))).sagaId;
  const repeating = request.repeatAfterMs === null ? null : delay(request.repeatAfterMs).then(provision);
  const sagaId = await provision();
  one.sagaIds.add(sagaId);
  if (request.foreign !== null && isAfter) addForeign(request.foreign, request.input.name, sagaId, play);
  if (repeating !== null) one.sagaIds.add(await repeating);
  if (request.isContradicted) one.contradiction = await contradict(request, play);
  if (request.cancelAfterMs !== null) {
    await delay(request.cancelAfterMs);
    one.cancel = (await play.insist(() => client.cancel(sagaId, 'chaos'))).kind;
  }
  if (!request.isDestroyed) return;
  const saga = await untilAtRest(sagaId, play);
  const dropletId = saga.context['droplet_id'];
  if (saga.status !== 'completed' || typeof dropletId !== 'number') return;
  one.destroySagaId = (await play.insist(() => client.destroyDroplet(dropletId, { idempotencyKey: `${request.key}-destroy` }))).sagaId;
}

async function contradict(request: Request, play: Play): Promise<'refused' | 'accepted'> {
  const other = { ...request.input, region: 'sgp1' };
  try {
    await play.insist(() => play.stage.client.provisionDroplet(other, { idempotencyKey: request.key }));
    return 'accepted';
  } catch (error) {
    if (error instanceof Error && error.name === 'IdempotencyConflictError') return 'refused';
    throw error;
  }
}

async function untilAtRest(sagaId: string, play: Play): Promise<Saga> {
  for (;;) {
    const saga = await play.insist(() => play.stage.client.get(sagaId));
    if (saga !== null && isAtRest(saga.status)) return saga;
    await delay(LOOK_EVERY_MS, undefined, { signal: play.signal });
  }
}

/** The client has decided: asking again would not change it. */
function isAnswer(error: unknown): boolean {
  return error instanceof Error && ['InvalidRequestError', 'IdempotencyConflictError', 'AbortError', 'TypeError', 'RangeError'].includes(error.name);
}

const AN_HOUR_MS = 3_600_000;

/** `sagaId` is a saga of ours for a droplet of the same saga8, and any other id else. */
function addForeign(kind: Foreign, name: string, sagaId: string, { stage, foreign }: Play): void {
  const otherId = kind === 'same_saga8' ? sagaId.slice(0, 8) + randomUUID().slice(8) : sagaId;
  const tags = ['managed-by-arcadia-cloud', `arcadia-saga-${otherId.slice(0, 8)}`, `arcadia-saga-id-${otherId}`];
  const isManaged = kind === 'other_environment' || kind === 'same_saga8';
  const droplet = stage.sandbox.addForeignDroplet({
    name,
    tags: isManaged ? tags : ['web'],
    ...(kind === 'old' ? { created_at: new Date(Date.now() - AN_HOUR_MS).toISOString() } : {}),
  });
  const line = stage.sandbox.state({ name }).find(({ id }) => id === droplet.id);
  if (line !== undefined) foreign.push(line);
}
