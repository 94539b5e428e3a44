// The request budget of a single process, in memory. A worker falls back to it while the fleet's store is unreachable. It
// follows the same rules as the fleet's stores and is the readable form of them: the script in budget-redis.ts and the
// functions in migrations 0032, 0037 and 0038 do the same.

import type { BudgetAsk, BudgetStore, Turn } from './budget-store.ts';
import { ASK_AGAIN_MS, FIRSTS_OVER_MS, GATHER_MS, PACED_HOUR, PACED_MINUTE, SOONEST_MS, TURN_GRACE_MS } from './budget-store.ts';
import { createTurns } from './turns.ts';

/**
 * A request that was drawn. `isFirst`: it goes before creates, as those of deletions do. `isPaced`: it took one of the requests
 * that are granted evenly over the window.
 */
type Drawn = { at: number; serial: number; isRead: boolean; isFirst: boolean; isPaced: Readonly<Record<Window, boolean>> };

type Window = 'minute' | 'hour';

const windows: readonly Window[] = ['minute', 'hour'];

const MINUTE_MS = 60_000;
const HOUR_MS = 3_600_000;

// The part of the minute limit that a 429 leaves at least, and by how much it grows back each minute.
const SMALLEST_SHARE = 0.1;
const GROWTH_PER_MINUTE = 0.1;

// 429s within this time count as one, because their requests were in flight together.
const SAME_CUT_MS = 1_000;

/**
 * Creates an empty budget.
 *
 * @param marginMs how much longer than its window a request counts
 */
export function createLocalBudgetStore(nowMs: () => number = () => performance.now(), marginMs = 0): BudgetStore {
  const lengths: Readonly<Record<Window, number>> = { minute: MINUTE_MS + marginMs, hour: HOUR_MS + marginMs };
  const turns = createTurns();
  const pacedAt: Record<Window, number> = { minute: Number.NEGATIVE_INFINITY, hour: Number.NEGATIVE_INFINITY };
  let drawn: Drawn[] = [];
  let heldUntil = 0;
  let cut = { share: 1, at: Number.NEGATIVE_INFINITY };
  let told = { limit: Number.POSITIVE_INFINITY, foreign: 0, at: Number.NEGATIVE_INFINITY };
  let serials = 0;

  const shareAt = (now: number) => Math.min(1, cut.share + (GROWTH_PER_MINUTE * (now - cut.at)) / MINUTE_MS);

  const timesIn = (window: Window, now: number, counts: (one: Drawn) => boolean) => drawn.filter((one) => one.at > now - lengths[window] && counts(one)).map(({ at }) => at);

  return {
    draw: async (ask) => {
      const now = nowMs();
      drawn = drawn.filter(({ at }) => at > now - lengths.hour);
      turns.expire(now - TURN_GRACE_MS);
      const share = shareAt(now);
      // What others used leaves the hour with time, too.
      const foreignLeaveMs = Math.max(0, HOUR_MS - (now - told.at));
      const foreign = Math.ceil((told.foreign * foreignLeaveMs) / HOUR_MS);
      const hourRoom = Math.min(ask.perHour, foreignLeaveMs > 0 ? told.limit - foreign : Number.POSITIVE_INFINITY) - ask.keepHour;
      const limits: Readonly<Record<Window, number>> = { minute: Math.max(1, Math.floor(ask.perMinute * share) - ask.keepMinute), hour: Math.max(1, hourRoom) };
      const reads: Readonly<Record<Window, number>> = { minute: ask.readsMinute, hour: ask.readsHour };
      const all = { minute: timesIn('minute', now, () => true), hour: timesIn('hour', now, () => true) };
      const others = { minute: timesIn('minute', now, ({ isRead }) => !isRead), hour: timesIn('hour', now, ({ isRead }) => !isRead) };
      const readTimes = { minute: timesIn('minute', now, ({ isRead }) => isRead), hour: timesIn('hour', now, ({ isRead }) => isRead) };

      /** When a window has room for one more after `ahead` others, whatever their pace. */
      const windowAt = (window: Window, ahead: number) => {
        const room = freeAt(all[window], limits[window], lengths[window], ahead, now);
        if (!ask.isRead) return Math.max(room, freeAt(others[window], limits[window] - reads[window], lengths[window], ahead, now));
        let within = Math.max(room, freeAt(readTimes[window], reads[window], lengths[window], ahead, now));
        if (window === 'minute') within = Math.max(within, freeAt(readTimes.minute.filter((at) => at > now - lengths.minute / 5), Math.ceil(reads.minute / 5), lengths.minute / 5, ahead, now));
        if (turns.size() > 0) return within;
        return Math.min(within, freeAt(all[window], limits[window] - reads[window], lengths[window], ahead, now));
      };

      const grant = (isPaced: Drawn['isPaced']) => {
        serials += 1;
        drawn.push({ at: now, serial: serials, isRead: ask.isRead, isFirst: isFirst(ask), isPaced });
        return answer(0, 0);
      };
      const answer = (waitMs: number, againMs: number) => ({ waitMs, againMs, usedMinute: timesIn('minute', now, () => true).length, usedHour: drawn.length, foreign, serial: waitMs === 0 ? serials : 0 });

      if (ask.turn === null) {
        const roomInMs = Math.max(windowAt('minute', 0), windowAt('hour', 0), heldUntil) - now;
        if (roomInMs <= 0) return Promise.resolve(grant({ minute: false, hour: false }));
        const isUnsure = foreign > 0 || share < 1;
        const waitMs = Math.min(Math.max(roomInMs, SOONEST_MS), isUnsure ? Math.max(MINUTE_MS, heldUntil - now) : Number.POSITIVE_INFINITY);
        return Promise.resolve(answer(waitMs, waitMs));
      }

      const { turn } = ask;
      const isBack = turns.has(turn);
      // Where nobody waits, no place is taken for a request that is granted at once.
      if (!isBack && turns.size() > 0) turns.enter(turn);
      const isEntered = turns.has(turn);
      const rank = isEntered ? turns.rankOf(turn) : 0;
      const waiting = turns.size() + (isEntered ? 0 : 1);
      // Who does not come within the next seconds takes no room from this one.
      const ahead = Math.min(rank, turns.countDue(now + TURN_GRACE_MS, turn));
      const paces = windows.map((window) => paceOf(window, ask));

      function paceOf(window: Window, { readsMinute, readsHour }: BudgetAsk) {
        const creates = Math.max(1, limits[window] - (window === 'minute' ? readsMinute : readsHour));
        const paced = Math.ceil(creates * (window === 'minute' ? PACED_MINUTE : PACED_HOUR));
        const gap = lengths[window] / paced;
        const nextPaced = Math.max(now, pacedAt[window] + gap);
        const bursts = timesIn(window, now, (one) => !one.isRead && !one.isPaced[window]);
        const firsts = drawn.filter((one) => one.isFirst);
        const expected = (firsts.filter(({ at }) => at > now - FIRSTS_OVER_MS).length * lengths[window]) / FIRSTS_OVER_MS;
        const toCome = Math.ceil(expected) - firsts.filter(({ at }) => at > now - lengths[window]).length;
        const most = Math.max(0, creates - paced - Math.max(0, Math.min(toCome, paced)));
        return {
          window,
          // By then all that wait have room: nobody is held back.
          endsAt: windowAt(window, waiting - 1),
          freeBursts: most - bursts.length,
          at: (place: number) => pacedSlotAt(place, (index) => (most === 0 ? Number.POSITIVE_INFINITY : freeAt(bursts, most, lengths[window], index, now)), nextPaced, gap),
        };
      }

      const slotAt = (place: number, isPaceKept = false) =>
        Math.max(...paces.map(({ window, endsAt, at }) => Math.max(windowAt(window, place), isPaceKept && window === 'minute' ? at(place) : Math.min(at(place), endsAt))));

      // Of those that ask for the first time, nobody knows yet how many more come.
      if (heldUntil <= now && slotAt(ahead, !isBack) <= now) {
        turns.leave(turn, { isServed: true });
        const isPaced = { minute: false, hour: false };
        for (const { window, freeBursts } of paces) {
          if (freeBursts > ahead) continue;
          isPaced[window] = true;
          pacedAt[window] = now;
        }
        return Promise.resolve(grant(isPaced));
      }

      const minuteLimit = limits.minute;
      const slotMs = Math.max(1, Math.max(slotAt(rank), heldUntil > now ? heldUntil + (rank * MINUTE_MS) / minuteLimit : 0) - now);
      const lacking = rank + 1 + Math.max(0, Math.max(all.hour.length, others.hour.length + reads.hour) - hourRoom);
      const earliestMs = earliest(slotMs, { heldMs: Math.max(0, heldUntil - now), share, foreignMs: foreign > 0 ? (lacking / foreign) * foreignLeaveMs : Number.POSITIVE_INFINITY });
      const waitMs = Math.ceil(Math.min(slotMs, Math.max(ASK_AGAIN_MS, earliestMs)));
      let againMs = Math.min(waitMs, Math.max(ASK_AGAIN_MS, waitMs / 2));
      if (heldUntil <= now) {
        const overdue = turns.countDue(now, turn);
        // There is room, but it belongs to those that are about to come, or are gone.
        if (slotAt(0) <= now && slotAt(Math.max(0, rank - overdue)) <= now) againMs = Math.min(againMs, TURN_GRACE_MS);
        // Only the pace holds it back, as far as is known.
        if (!isBack && slotAt(ahead) <= now) againMs = GATHER_MS;
      }
      againMs = Math.ceil(againMs);
      if (!isEntered) turns.enter(turn);
      turns.postpone(turn, now + againMs);
      return Promise.resolve(answer(waitMs, againMs));
    },
    withdraw: async (turn: Turn) => Promise.resolve(turns.leave(turn, { isServed: false })),
    // The local share is so small that one second more or less makes no difference.
    late: async () => Promise.resolve(),
    hold: async (forMs) => {
      const now = nowMs();
      heldUntil = Math.max(heldUntil, now + forMs);
      if (now - cut.at > SAME_CUT_MS) cut = { share: Math.max(SMALLEST_SHARE, shareAt(now) / 2), at: now };
      return Promise.resolve();
    },
    correct: async (limit, remaining) => {
      const now = nowMs();
      told = { limit, foreign: Math.max(0, limit - remaining - drawn.filter(({ at }) => at > now - HOUR_MS).length), at: now };
      return Promise.resolve();
    },
  };
}

/** Whether a request goes before creates: it waits for no turn, and leaves no part to higher priorities. */
function isFirst({ turn, isRead, keepHour }: BudgetAsk): boolean {
  return turn === null && !isRead && keepHour === 0;
}

/**
 * How soon the turn may come that the windows promise in `slotMs`: a limit that a 429 reduced grows back, and what others use may
 * leave the hour and not come again.
 *
 * @param how.foreignMs how long it takes until enough of what others used has left; infinite: they used nothing
 */
function earliest(slotMs: number, { heldMs, share, foreignMs }: { heldMs: number; share: number; foreignMs: number }): number {
  return Math.min(heldMs + (slotMs - heldMs) * share, Math.max(heldMs, foreignMs));
}

/**
 * When a window has room for one more request after `ahead` others.
 *
 * @param times of the requests in the window, oldest first
 */
function freeAt(times: readonly number[], limit: number, window: number, ahead: number, now: number): number {
  const size = Math.max(1, limit);
  const free = Math.max(0, size - times.length);
  const place = ahead % size;
  const rounds = Math.floor(ahead / size);
  // Each request leaves the window after its length, and those ahead take its place.
  if (place < free) return now + rounds * window;
  const leaving = times[Math.max(0, times.length - size) + place - free] ?? now;
  return leaving + window * (1 + rounds);
}

/**
 * When the request at a place is granted, if requests are granted in bursts and, besides, one after each gap.
 *
 * @param burstAt when the burst with an index is granted
 */
function pacedSlotAt(place: number, burstAt: (index: number) => number, nextPaced: number, gap: number): number {
  // How many of the first place + 1 are paced: the least number after which the next paced one would come no sooner than
  // the last burst.
  let [low, high] = [0, place + 1];
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if (burstAt(place - middle) <= nextPaced + middle * gap) high = middle;
    else low = middle + 1;
  }
  return Math.max(low > 0 ? nextPaced + (low - 1) * gap : 0, low <= place ? burstAt(place - low) : 0);
}
