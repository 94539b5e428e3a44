// I/O is asked for, and waits; then it happens, or not, and whoever asked learns of it, or not.
import { drain } from './runs.ts';
import { REQUEST_MS } from './settings.ts';
import { failure } from './simulated-cloud.ts';
import type { Operation, Reply, State, Way } from './state.ts';
import { count, oneOf, tell } from './state.ts';
import type { Call } from './violation.ts';
import { Violation } from './violation.ts';

/** What the simulated services call for each of their I/Os. */
export function createCall(state: State): Call {
  return <T>(kind: Operation['kind'], name: string, effect: () => T, tellMore: () => string = () => ''): Promise<T> => {
    const run = state.current;
    if (run === null) throw new Violation(`${name} is called by nobody`);
    run.blocked += 1;
    return new Promise<T>((resolve, reject) => {
      const fail = (error: unknown): Reply => ({ ok: false, value: error, resume: () => reject(error) });
      const happen = (): Reply => {
        try {
          const value = effect();
          return { ok: true, value, resume: () => resolve(value) };
        } catch (error) {
          if (error instanceof Violation) state.violation ??= error;
          return fail(error);
        }
      };
      state.operations.push({ run, kind, name, tell: tellMore, happen, fail, deadline: state.now + REQUEST_MS, reply: null });
    });
  };
}

export async function perform(state: State, operation: Operation, way: Way): Promise<void> {
  operation.reply ??= carryOut(state, operation, way);
  if (operation.run.process.state === 'frozen') return;
  state.operations = state.operations.filter((other) => other !== operation);
  const { run, reply } = operation;
  run.blocked -= 1;
  state.current = run;
  reply.resume();
  await drain(state, run);
}

export function carryOut(state: State, operation: Operation, wanted: Way): Reply {
  const { run, name } = operation;
  let way = wanted;
  if (operation.kind === 'http' && state.now < state.unauthorizedUntil) way = 'unauthorized';
  else if (operation.kind === 'http' && state.now < state.downUntil && way === 'done') way = 'unanswered';
  if (way !== 'done') count(state, `${name.replace(/ (\/|in |from |to saga).*/, '')}: ${way}`);
  let reply: Reply;
  switch (way) {
    case 'done':
      reply = happen(state, operation);
      break;
    case 'done, reply lost':
      happen(state, operation);
      reply = operation.fail(errorOf(operation, way));
      break;
    case 'done late, reply lost':
      state.lateEffects.push({ at: state.now + oneOf(state, [1_000, 4_000, 9_000]), operation });
      reply = operation.fail(errorOf(operation, way));
      break;
    case 'not done':
    case 'unanswered':
    case 'throttled':
    case 'unauthorized':
    case 'rejected':
      reply = operation.fail(errorOf(operation, way));
      break;
    default:
      return way satisfies never;
  }
  tell(state, () => `${run.process.name} ${name} ${operation.tell()} → ${way === 'done' ? brief(reply.value) : way}`);
  return reply;
}

export function happen(state: State, operation: Operation): Reply {
  const before = state.current;
  state.current = operation.run;
  const reply = operation.happen();
  state.current = before;
  return reply;
}

function errorOf({ kind, name }: Operation, way: Way): Error {
  const message = `${name.trim()}: ${way}`;
  if (kind === 'sql') return Object.assign(new Error(message), { code: 'CONNECTION_CLOSED' });
  if (kind === 'queue') return new Error(message);
  const method = name.startsWith('POST') ? 'POST' : name.startsWith('DELETE') ? 'DELETE' : 'GET';
  if (way === 'throttled') return failure(method, 'throttled', { status: 429, message, retryAfterMs: 3_000 });
  if (way === 'unauthorized') return failure(method, 'unauthorized', { status: 401, message });
  if (way === 'rejected') return failure(method, 'rejected', { status: 422, message });
  if (way === 'not done') return failure(method, 'later', { status: null, message });
  // Tags are put on a droplet again without harm.
  return failure(method, method === 'POST' && !name.startsWith('POST /v2/tags') ? 'ambiguous' : 'later', { status: 503, message });
}

function brief(value: unknown): string {
  if (value instanceof Error) return String(value);
  if (Array.isArray(value)) return `[${value.map(brief).join(', ')}]`;
  if (typeof value !== 'object' || value === null) return String(value);
  if ('droplet' in value) return brief(value.droplet);
  if ('tags' in value && 'id' in value && 'status' in value) return `droplet ${String(value.id)} ${String(value.status)} [${String(value.tags)}]`;
  return Object.keys(value).length > 3 ? 'found' : JSON.stringify(value);
}
