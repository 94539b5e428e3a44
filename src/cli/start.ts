// `start` starts any saga of the app and follows it.
import type { JsonObject } from '../platform/json.ts';
import { unlessAborted } from '../platform/deadline.ts';
import { isJsonObject, parseJson } from '../platform/json.ts';
import type { App } from '../saga/app.ts';
import type { SagaPriority } from '../saga/saga.ts';
import { requireSaga } from './app.ts';
import { requester } from './requester.ts';
import type { FollowOptions } from './start-and-follow.ts';
import { startAndFollow } from './start-and-follow.ts';
import { readText } from './read-text.ts';
import { UsageError } from './usage-error.ts';

export async function startCommand(app: App, name: string, options: FollowOptions & { input: string; idempotencyKey?: string; priority?: SagaPriority }, stop: AbortSignal): Promise<number> {
  const saga = requireSaga(app, name);
  const input = await unlessAborted(stop, readInput(options.input));
  return startAndFollow(app, `starting ${name}`, (client) => client.start(saga, input, { idempotencyKey: options.idempotencyKey, priority: options.priority, requestedBy: requester() }), options, stop);
}

/** Reads JSON, the file named after an @, or stdin for -. */
async function readInput(given: string): Promise<JsonObject> {
  const text = given.startsWith('@') ? await readInputFile(given.slice(1)) : given;
  const input = parseJson(text);
  if (!isJsonObject(input)) throw new UsageError('--input: expected a JSON object, such as \'{"name": "web-1"}\', or @file with one, or @- for stdin');
  return input;
}

async function readInputFile(file: string): Promise<string> {
  try {
    return await readText(file);
  } catch (error) {
    throw new UsageError(`--input: cannot read ${file}: ${error instanceof Error ? error.message : String(error)}`);
  }
}
