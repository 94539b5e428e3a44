// What the simulation is looking for.

/** Something that must never be, is. */
export class Violation extends Error {
  override readonly name = 'Violation';
}

/** The mechanisms that can be switched off, to see that the simulation notices. */
export type Mechanism = 'fencing' | 'intent' | 'settle window' | 'reconciler' | 'adoption by tag' | 'one saga a resource' | 'expiry mark';

/**
 * One I/O: the effect happens when, and if, the schedule says so, and its result comes when, and if, the schedule says so.
 * `tell` says what it was about, for the trace.
 */
export type Call = <T>(kind: 'sql' | 'http' | 'queue', name: string, effect: () => T, tell?: () => string) => Promise<T>;
