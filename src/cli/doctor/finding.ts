// A finding of `arcadia doctor`, as one line, and the runner of its checks: all in parallel, each with a deadline of a
// few seconds.
import { withDeadline } from '../../platform/deadline.ts';

/** `fail`: something does not work. `warn`: it works, but a person should check. */
export type Finding = Readonly<{
  check: string;
  level: 'ok' | 'warn' | 'fail';
  text: string;
  /** The remedy; null: none needed. */
  action: string | null;
}>;

export const ok = (check: string, text: string): Finding => ({ check, level: 'ok', text, action: null });
export const warn = (check: string, text: string, action: string): Finding => ({ check, level: 'warn', text, action });
export const fail = (check: string, text: string, action: string): Finding => ({ check, level: 'fail', text, action });

/** One group of checks. */
export type Check = Readonly<{ name: string; run(): Promise<Finding[]> }>;

// Also limits a store that neither accepts nor refuses connections.
const CHECK_WITHIN_MS = 6_000;

/** Runs checks in parallel. A check that throws or takes too long becomes a finding. */
export async function runChecks(checks: readonly Check[], withinMs = CHECK_WITHIN_MS): Promise<Finding[]> {
  const found = await Promise.all(
    checks.map(async ({ name, run }) => {
      try {
        return await withDeadline(withinMs, run(), () => new Error(`no answer within ${withinMs / 1_000} s`));
      } catch (error) {
        return [fail(name, error instanceof Error ? error.message : String(error), 'Fix what the message names, then run `arcadia doctor` again.')];
      }
    }),
  );
  return found.flat();
}

const signs = { ok: 'OK  ', warn: 'WARN', fail: 'FAIL' } as const;

/** Messages of several lines, such as those of a wrong session, as one: afterwards their line breaks would be escaped. */
export function inOneLine(finding: Finding): Finding {
  return { ...finding, text: finding.text.replaceAll(/\s*\n\s*/g, ' ') };
}

/** Formats a finding as a line. */
export function formatFinding({ check, level, text, action }: Finding): string {
  const line = `${signs[level]} ${check}: ${text}`;
  return action === null ? line : `${/[.!?]$/.test(line) ? line : `${line}.`} ${action}`;
}

/** Describes a clock's deviation. */
export function describeSkew(check: string, other: string, skewMs: number): Finding {
  const seconds = Math.abs(skewMs) / 1_000;
  const text = `this machine's clock is ${seconds.toFixed(1)} s ${skewMs > 0 ? 'ahead of' : 'behind'} ${other}`;
  if (Math.abs(skewMs) <= TOLERATED_SKEW_MS) return ok(check, `this machine's clock agrees with ${other} (within ${TOLERATED_SKEW_MS / 1_000} s)`);
  return warn(check, text, 'Set the clock (NTP).');
}

// An HTTP date has whole seconds, and a request takes a while.
const TOLERATED_SKEW_MS = 2_000;
