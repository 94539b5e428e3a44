// Processes an API request: records it in the ledger, checks and counts it, applies faults, does the work and responds.
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { endDueActions } from './action-store.ts';
import type { Answer, Call } from './answer.ts';
import { errorAnswer } from './answer.ts';
import { carries, chooseHit, namesInBody } from './faults-at-work.ts';
import type { Effect } from './faults.ts';
import { isObject } from './json.ts';
import type { LedgerEntry, LedgerStatus } from './ledger.ts';
import { closeEntry, openEntry } from './ledger.ts';
import { drawMs } from './random.ts';
import { countRequest, createRateWindows, uncountedRateHeaders } from './rate-window.ts';
import { nowMs, rateLimits, type World } from './world.ts';

/** The work of a route, done synchronously. */
export type Work = (world: World, call: Call) => Answer;

/** Serves one API request from start to end. It writes to the raw response, so that faults have full control. */
export async function serveCall(world: World, route: string, work: Work, request: FastifyRequest, reply: FastifyReply): Promise<void> {
  reply.hijack();
  const call = readCall(request);
  const entry = openEntry(world.ledger, {
    at: nowMs(world),
    method: call.method,
    path: call.path,
    query: call.query,
    route: routeClass(route, call),
    requestId: call.requestId,
    userAgent: request.headers['user-agent'] ?? '',
    names: call.method === 'POST' ? namesInBody(call) : [],
  });
  try {
    const status = await answerCall(world, call, work, entry, reply);
    closeEntry(world.ledger, entry, status, nowMs(world));
  } catch (error) {
    if (world.closing.aborted) return;
    // A bug in the sandbox itself. Tests must see it and not a hanging request.
    const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
    closeEntry(world.ledger, entry, send(reply, errorAnswer(call, 500, 'sandbox_bug', message), {}), nowMs(world));
  }
}

async function answerCall(world: World, call: Call, work: Work, entry: LedgerEntry, reply: FastifyReply): Promise<LedgerStatus> {
  const { settings } = world.faultBox;
  // Everything that depends on the order of arrival is decided before the first await.
  const [refusal, rateHeaders] = refuse(world, call);
  const hit = refusal === undefined ? chooseHit(world.faultBox, call) : undefined;
  const latencyMs = drawMs(settings.latencyMs, world.faultBox.chance);
  const headers = { ...rateHeaders, 'x-request-id': call.requestId, date: new Date(nowMs(world)).toUTCString() };
  entry.fault = hit?.fault ?? null;
  const effect: Effect = hit?.effect ?? {};

  await pause(world, latencyMs + (effect.delayMs ?? 0));
  if (refusal !== undefined) return send(reply, refusal, headers);
  if (effect.hang === true) return 'hung';
  if (effect.reset === true) {
    reply.raw.socket?.resetAndDestroy();
    return 'reset';
  }
  const early = answerWithoutWork(call, effect);
  if (early !== undefined) return send(reply, early, headers);

  endDueActions(world.actions, nowMs(world));
  const answer = work(world, call);
  entry.made = answer.made ?? [];
  entry.deleted = answer.deleted ?? [];
  await pause(world, effect.holdAnswerMs ?? 0);
  if (effect.lostAnswer === true) {
    reply.raw.socket?.destroy();
    return 'lost';
  }
  if (effect.htmlAfterWork !== undefined) return send(reply, htmlAnswer(effect.htmlAfterWork), headers);
  const mangled = effect.mangleId === undefined ? answer : mangleIds(answer, effect.mangleId);
  return send(reply, effect.truncate === true ? truncated(mangled) : mangled, headers);
}

// Checks in this order: the gateway is down, the token is invalid, the rate limit is used up. Only the last check counts
// the request.
function refuse(world: World, call: Call): [Answer | undefined, Record<string, string>] {
  const limits = rateLimits(world);
  const now = nowMs(world);
  const { down, unauthorized } = world.faultBox.settings;
  if (down) return [errorAnswer(call, 503, 'service_unavailable', 'Server is temporarily unavailable.'), {}];
  const isWrong = call.token === undefined || (world.settings.token !== undefined && call.token !== world.settings.token);
  if (unauthorized || isWrong || call.token === undefined) {
    return [errorAnswer(call, 401, 'Unauthorized', 'Unable to authenticate you'), uncountedRateHeaders(limits, now)];
  }
  const windows = world.rates.get(call.token) ?? createRateWindows();
  world.rates.set(call.token, windows);
  const verdict = countRequest(windows, limits, now);
  const isForbidden = world.faultBox.settings.forbiddenFields.some((field) => carries(call, field));
  if (verdict.allowed && isForbidden) return [errorAnswer(call, 403, 'Forbidden', 'You are not authorized to perform this operation'), verdict.headers];
  if (verdict.allowed) return [undefined, verdict.headers];
  return [errorAnswer(call, 429, 'too_many_requests', 'API Rate limit exceeded.'), verdict.headers];
}

function answerWithoutWork(call: Call, effect: Effect): Answer | undefined {
  if (effect.status !== undefined) {
    const body = effect.body ?? { id: 'sandbox_fault', message: `Status ${effect.status}, as asked for.`, request_id: call.requestId };
    return {
      status: effect.status,
      body: Array.isArray(body) ? JSON.stringify(body) : body,
      ...(effect.headers === undefined ? {} : { headers: effect.headers }),
    };
  }
  if (effect.html !== undefined) return htmlAnswer(effect.html);
  if (effect.retryAfterS === undefined) return undefined;
  const headers: Record<string, string> = effect.retryAfterS === null ? {} : { 'retry-after': String(effect.retryAfterS) };
  return { ...errorAnswer(call, 429, 'too_many_requests', 'API Rate limit exceeded.'), headers };
}

function htmlAnswer(status: number): Answer {
  return {
    status,
    body: `<html>\r\n<head><title>${status} Gateway Error</title></head>\r\n<body><center><h1>${status}</h1></center></body>\r\n</html>\r\n`,
    headers: { 'content-type': 'text/html' },
  };
}

function mangleIds(answer: Answer, how: NonNullable<Effect['mangleId']>): Answer {
  if (typeof answer.body !== 'object') return answer;
  const mangle = (droplet: unknown): unknown => {
    if (!isObject(droplet)) return droplet;
    const { id, ...others } = droplet;
    const broken = { string: String(id), zero: 0, negative: -Number(id), huge: 1e21, missing: undefined }[how];
    return { ...others, id: broken };
  };
  const { droplet, droplets } = answer.body;
  if (droplet !== undefined) return { ...answer, body: { ...answer.body, droplet: mangle(droplet) } };
  if (Array.isArray(droplets)) return { ...answer, body: { ...answer.body, droplets: droplets.map((one) => mangle(one)) } };
  return answer;
}

function truncated(answer: Answer): Answer {
  if (answer.body === undefined) return answer;
  const text = typeof answer.body === 'string' ? answer.body : JSON.stringify(answer.body);
  return { ...answer, body: text.slice(0, Math.floor(text.length / 2)) };
}

/** Sends a response. Returns its status, or `lost` if the caller has disconnected. */
function send(reply: FastifyReply, answer: Answer, headers: Readonly<Record<string, string>>): LedgerStatus {
  if (reply.raw.socket === null || reply.raw.socket.destroyed) return 'lost';
  const body = typeof answer.body === 'object' ? JSON.stringify(answer.body) : (answer.body ?? '');
  const length = answer.status === 204 ? {} : { 'content-length': String(Buffer.byteLength(body)) };
  reply.raw.writeHead(answer.status, {
    'content-type': 'application/json; charset=utf-8',
    ...headers,
    ...lowerCaseKeys(answer.headers ?? {}),
    ...length,
  });
  reply.raw.end(body);
  return answer.status;
}

function lowerCaseKeys(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}

async function pause(world: World, ms: number): Promise<void> {
  if (ms > 0) await sleep(ms, undefined, { signal: world.closing });
}

function readCall(request: FastifyRequest): Call {
  const url = new URL(request.url, 'http://sandbox');
  const [, token] = /^Bearer\s+(\S+)\s*$/iu.exec(request.headers.authorization ?? '') ?? [];
  return {
    method: request.method,
    path: withoutTrailingSlashes(url.pathname),
    query: Object.fromEntries(url.searchParams),
    params: readParams(request.params),
    body: parseBody(request.body),
    origin: `http://${request.headers.host ?? request.hostname}`,
    requestId: randomUUID(),
    token,
  };
}

function readParams(params: unknown): Record<string, string> {
  return isObject(params) ? Object.fromEntries(Object.entries(params).map(([name, value]) => [name, String(value)])) : {};
}

function parseBody(text: unknown): unknown {
  if (typeof text !== 'string' || text === '') return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

// Lists by tag and lists of everything are counted separately.
function routeClass(route: string, call: Call): string {
  const filters = ['tag_name', 'name', 'type'].filter((key) => key in call.query);
  return filters.length === 0 ? route : `${route}?${filters.join('&')}`;
}

function withoutTrailingSlashes(path: string): string {
  let end = path.length;
  while (end > 1 && path[end - 1] === '/') end -= 1;
  return path.slice(0, end);
}
