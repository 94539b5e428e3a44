// Selects the fault that affects a request, if any: first scripted rules, then random faults.
import type { Call } from './answer.ts';
import type { Effect, ErrorKind, FaultBox, Rule } from './faults.ts';
import { isObject, listOf } from './json.ts';
import { matchesName, matchesPath } from './patterns.ts';

/** The effect on a request, and its name for the ledger. */
export type Hit = { readonly effect: Effect; readonly fault: string };

const effectOfKind: Readonly<Record<ErrorKind, Effect>> = {
  '500': { status: 500, body: { id: 'server_error', message: 'Unexpected server-side error' } },
  '502': { html: 502 },
  '503': { status: 503, body: { id: 'service_unavailable', message: 'Server is temporarily unavailable.' } },
  '504': { html: 504 },
  '429': { retryAfterS: 1 },
  reset: { reset: true },
  lost: { lostAnswer: true },
  truncated: { truncate: true },
  '504-after-work': { htmlAfterWork: 504 },
};

/** Updates the counters of the rules and draws the random faults, in order of arrival. */
export function chooseHit(box: FaultBox, call: Call): Hit | undefined {
  for (const [index, counted] of box.rules.entries()) {
    if (!matchesRule(counted.rule.match, call)) continue;
    counted.seen += 1;
    if (counted.seen <= (counted.rule.skip ?? 0)) continue;
    if (counted.fired >= (counted.rule.times ?? Infinity)) continue;
    counted.fired += 1;
    return { effect: counted.rule.effect, fault: `rule ${index}` };
  }
  return chooseByChance(box);
}

function chooseByChance(box: FaultBox): Hit | undefined {
  const { errorRate, errorKinds: kinds } = box.settings;
  if (errorRate <= 0 || box.chance() >= errorRate) return undefined;
  const kind = kinds[Math.floor(box.chance() * kinds.length)] ?? '500';
  return { effect: effectOfKind[kind], fault: `errorRate ${kind}` };
}

function matchesRule(match: Rule['match'], call: Call): boolean {
  if (match.method !== undefined && match.method !== call.method) return false;
  if (match.path !== undefined && !matchesPath(match.path, call.path)) return false;
  if (match.name !== undefined && !someMatches(match.name, namesOf(call))) return false;
  if (match.field !== undefined && !carries(call, match.field)) return false;
  return match.tag === undefined || someMatches(match.tag, tagsOf(call));
}

/** Whether a request body sets this field. Null, false and an empty list do not count. */
export function carries(call: Call, field: string): boolean {
  const value = bodyOf(call)[field];
  return value !== undefined && value !== null && value !== false && !(Array.isArray(value) && value.length === 0);
}

function someMatches(pattern: string, texts: readonly unknown[]): boolean {
  return texts.some((text) => typeof text === 'string' && matchesName(pattern, text));
}

/** The names in the body of a create. */
export function namesInBody(call: Call): string[] {
  const { name, names } = bodyOf(call);
  return [name, ...listOf(names)].filter((one) => typeof one === 'string');
}

function namesOf(call: Call): readonly unknown[] {
  const { name, names } = bodyOf(call);
  return [call.query['name'], name, ...listOf(names)];
}

function tagsOf(call: Call): readonly unknown[] {
  const { tags } = bodyOf(call);
  return [call.query['tag_name'], ...listOf(tags)];
}

function bodyOf(call: Call): Readonly<Record<string, unknown>> {
  return isObject(call.body) ? call.body : {};
}
