// Turns of requesters, in memory: start-time fair queueing (Goyal, Vin and Cheng, 1996). Each waiting request has a virtual
// start time. Those of one requester are 1/weight apart, and the least comes first. A requester that begins to wait starts
// at the virtual time, which is the start of the last request that was served: it neither saves turns up nor owes any.
//
// A requester's start times belong to its places, not to its requests, so that a request with a higher priority takes the
// first place and the others move up by one.

import type { Turn } from './budget-store.ts';

type Waiting = { own: string; dueAt: number };

type Line = { weight: number; starts: number[]; waiting: Waiting[] };

/** The turns of all requests that wait. Times are milliseconds of the caller's clock. */
export type Turns = Readonly<{
  size(): number;
  has(turn: Turn): boolean;
  /** Takes a place for a request that has none. It is due at once. */
  enter(turn: Turn): void;
  /** The number of requests whose turns come before. */
  rankOf(turn: Turn): number;
  /** Says when a waiting request asks again. */
  postpone(turn: Turn, dueAt: number): void;
  /** The number of other requests that ask again until then. */
  countDue(until: number, except: Turn): number;
  /** Gives up the place of a request, if it has one. */
  leave(turn: Turn, how: { isServed: boolean }): void;
  /** Gives up the places of all requests that should have asked before then. */
  expire(before: number): void;
}>;

/** Creates turns for which nobody waits. */
export function createTurns(): Turns {
  const lines = new Map<string, Line>();
  // The virtual times until which requesters were served that no longer wait.
  const finishes = new Map<string, number>();
  let virtualTime = 0;

  const placeOf = ({ requester, own }: Turn) => lines.get(requester)?.waiting.findIndex((one) => one.own === own) ?? -1;

  const leave = (turn: Turn, { isServed }: { isServed: boolean }) => {
    const line = lines.get(turn.requester);
    const place = placeOf(turn);
    if (line === undefined || place < 0) return;
    line.waiting.splice(place, 1);
    // A request that is not served gives its requester's last place back.
    const start = (isServed ? line.starts.shift() : line.starts.pop()) ?? 0;
    if (isServed) virtualTime = Math.max(virtualTime, start);
    if (line.waiting.length === 0) {
      lines.delete(turn.requester);
      finishes.set(turn.requester, isServed ? start + 1 / turn.weight : start);
    }
    // Once nobody waits, nobody is ahead of anybody.
    if (lines.size === 0) virtualTime = Math.max(virtualTime, ...finishes.values());
    for (const [known, finish] of finishes) if (finish <= virtualTime) finishes.delete(known);
  };

  return {
    size: () => [...lines.values()].reduce((sum, { waiting }) => sum + waiting.length, 0),
    has: (turn) => placeOf(turn) >= 0,
    enter: ({ requester, own, weight }) => {
      const line = lines.get(requester) ?? { weight, starts: [], waiting: [] };
      const last = line.starts.at(-1);
      line.starts.push(last === undefined ? Math.max(virtualTime, finishes.get(requester) ?? 0) : last + 1 / weight);
      line.waiting.push({ own, dueAt: Number.POSITIVE_INFINITY });
      line.waiting.sort((one, other) => (one.own < other.own ? -1 : 1));
      lines.set(requester, line);
      finishes.delete(requester);
    },
    rankOf: (turn) => {
      const start = lines.get(turn.requester)?.starts[placeOf(turn)] ?? 0;
      let rank = 0;
      for (const [requester, { starts }] of lines) rank += starts.filter((other) => other < start || (other === start && requester < turn.requester)).length;
      return rank;
    },
    postpone: (turn, dueAt) => {
      const waiting = lines.get(turn.requester)?.waiting[placeOf(turn)];
      if (waiting !== undefined) waiting.dueAt = dueAt;
    },
    countDue: (until, except) => {
      let due = 0;
      for (const [requester, { waiting }] of lines) due += waiting.filter((one) => one.dueAt <= until && !(requester === except.requester && one.own === except.own)).length;
      return due;
    },
    leave,
    expire: (before) => {
      for (const [requester, { weight, waiting }] of lines) {
        for (const { own } of waiting.filter(({ dueAt }) => dueAt < before)) leave({ requester, own, weight }, { isServed: false });
      }
    },
  };
}
