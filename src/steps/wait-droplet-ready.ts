// The step that waits until the droplet is ready: until it answers at the port in the input, or reports itself. Each run checks once and,
// if it is too early, requests another run after the poll interval. It holds no worker meanwhile, and sends no request to
// DigitalOcean. Sagas without `ready` in their input do not have this step.
import { dropletTextOf } from '../inventory/droplet-of-saga.ts';
import { formatDuration } from '../platform/duration.ts';
import { isLocalTrouble } from '../platform/error-code.ts';
import { counted, shortTextOf } from '../platform/text.ts';
import type { Saga } from '../saga/saga.ts';
import { stepAgeMs } from '../saga/stamps.ts';
import type { Step, StepOutcome, StepRun } from '../saga/step.ts';
import { StepFailure, done, waiting } from '../saga/step.ts';
import type { SagaFacts } from '../saga/saga-words.ts';
import type { Readiness, StepDeps } from './deps.ts';
import { dropletFamily } from './family.ts';
import { hideUserData } from './hide-user-data.ts';
import type { Ready } from './inputs.ts';
import { readyOf } from './inputs.ts';
import { provisionDropletOutputs } from './outputs.ts';
import { callbackOfDroplet } from './ready-callback.ts';
import { mayProbe } from './may-probe.ts';
import type { Finding, Target } from './probe.ts';
import type { Busy } from './probe-places.ts';

const DEFAULT_WITHIN_S = 600;
const SOONEST_CHECK_MS = 250;
// An error message has at most 2,000 characters.
const SHOWN_LOG_LENGTH = 1_500;

// The first check after a paused queue does not end the wait.
const MIN_CHECKS = 2;

export const waitDropletReady: Step<StepDeps> & Readonly<{ onlyWith: 'ready' }> = {
  name: 'wait_droplet_ready',
  family: dropletFamily,
  onlyWith: 'ready',
  needs: provisionDropletOutputs.pick({ droplet_id: true }),
  words: {
    doing: 'waiting until the droplet is ready',
    notYet: (saga) => `droplet ${dropletTextOf(saga)} is not ready yet`,
    waitsFor: (saga) => waitsFor(saga),
    limitMs: (saga) => limitMsOf(askedIn(saga)),
  },

  async execute(run, deps) {
    const ready = readyOf(run.saga);
    if (ready === null) return done({}, 'nothing to wait for: the input has no `ready`');
    const finding = await check(ready, run, deps);
    // It says nothing about the droplet, so it counts as no check, and ends no wait.
    if ('retryMs' in finding) return waiting(finding.retryMs, 'waiting for its turn: other droplets are being checked', { memo: run.memo });
    return judge(finding, ready, run, deps);
  },

  async compensate() {
    return done({}, 'waiting left nothing to undo');
  },
};

async function check(ready: Ready, run: StepRun, { readiness }: StepDeps): Promise<Finding | Busy> {
  const { saga } = run;
  if (ready.callback === true) return heard(run, readiness);
  const target = targetOf(ready, saga);
  if (target === null) throw notReady(saga, 'it has no address that could be checked');
  if (!mayProbe(target.address, readiness.allowed)) {
    throw notReady(saga, `its address ${shortTextOf(target.address)} is not public, so it is not checked. To allow it, name its network in READY_PROBE_ALLOW of the workers`);
  }
  return readiness.probe(target);
}

/** Reads what the droplet has reported: this one, not another that the saga's creates may have made. */
async function heard(run: StepRun, { callbacks }: Readiness): Promise<Finding> {
  const { saga } = run;
  const number = callbackOfDroplet(saga);
  if (number === null) return { answered: false, why: 'several creates were sent, and the droplet has no wave tag that names its own' };
  const report = await callbacks.read(saga.id, number);
  if (report === null) return { answered: false, why: 'no report yet' };
  if (report.answer === 'ok') return { answered: true };
  const log = await withoutUserData(report.log, run);
  if (log !== report.log) await callbacks.keepLog(saga.id, number, log);
  const lines = log.split('\n').map((line) => line.trim()).filter((line) => line !== '');
  throw notReady(saga, `it reported that its user data failed${lines.length === 0 ? ', without a log' : `. The end of its log: ${endOf(lines.join(' | '))}`}`);
}

/** The log may repeat the user data, and the passwords in it. Waits while this worker lacks the key to it. */
async function withoutUserData(log: string, run: StepRun): Promise<string> {
  try {
    const userData = await run.secret('user_data');
    return userData === undefined ? log : hideUserData(log, userData);
  } catch (error) {
    if (!(error instanceof StepFailure)) throw error;
    return '(not shown: user_data cannot be opened, so it could not be hidden in the log)';
  }
}

/** Returns the last characters: a log ends with the failure. */
function endOf(text: string): string {
  return text.length <= SHOWN_LOG_LENGTH ? text : `…${text.slice(-SHOWN_LOG_LENGTH).toWellFormed()}`;
}

function judge(finding: Finding, ready: Ready, run: StepRun, { settings }: StepDeps): StepOutcome {
  if (finding.answered) {
    const checks = checksWithThis(run);
    const how = ready.callback === true ? 'it reported that its user data ran' : `${whatOf(ready, run.saga)} answered after ${counted(checks, 'check')}`;
    return done({}, `droplet ${dropletTextOf(run.saga)} is ready: ${how}`);
  }
  // A check that this machine could not make says nothing about the droplet.
  const { memo } = run;
  if (isLocalTrouble(finding.error)) return waiting(settings.pollIntervalMs, `could not check: ${finding.why}`, { memo, alarm: true });
  const checks = checksWithThis(run);
  const leftMs = limitMsOf(ready) - stepAgeMs(run);
  if (leftMs > 0 || checks < MIN_CHECKS) {
    return waiting(Math.min(settings.pollIntervalMs, Math.max(SOONEST_CHECK_MS, leftMs)), `last check: ${finding.why}`, { memo: { ...memo, polls: checks } });
  }
  const within = `within ${formatDuration(limitMsOf(ready))}`;
  if (ready.callback === true) throw notReady(run.saga, `it did not report ${within} that its user data ran`);
  throw notReady(run.saga, `${whatOf(ready, run.saga)} did not answer as expected ${within} (${counted(checks, 'check')}; the last one: ${finding.why})`);
}

function notReady(saga: SagaFacts, why: string): StepFailure {
  return new StepFailure({ code: 'droplet_not_ready', message: `droplet ${dropletTextOf(saga)} is not ready: ${why}`, retryable: false });
}

/** Returns the address to check: public IPv4 first, a private one only if the droplet has no other. */
function addressOf({ context }: Pick<Saga, 'context'>): string | null {
  const address = context['public_ipv4'] ?? context['public_ipv6'] ?? context['private_ipv4'];
  return typeof address === 'string' && address !== '' ? address : null;
}

function targetOf({ tcp, http }: Ready, saga: Pick<Saga, 'context'>): Target | null {
  const address = addressOf(saga);
  const port = http?.port ?? tcp;
  if (address === null || port === undefined) return null;
  return { address, port, http: http === undefined ? null : { path: http.path ?? '/', status: http.status ?? null } };
}

/** Names the target, such as `port 22 of 198.51.100.7`, or the URL. */
function whatOf({ tcp, http }: Ready, saga: Pick<Saga, 'context'>): string {
  const address = shortTextOf(addressOf(saga) ?? 'its address');
  return http === undefined ? `port ${tcp} of ${address}` : `http://${address.includes(':') ? `[${address}]` : address}:${http.port}${http.path ?? '/'}`;
}

function waitsFor(saga: SagaFacts): string {
  const ready = askedIn(saga);
  if (ready === null) return 'the droplet to be ready';
  return ready.callback === true ? 'the droplet to report that its user data ran' : `${whatOf(ready, saga)} to answer`;
}

/** For words, which must not throw. */
function askedIn(saga: SagaFacts): Ready | null {
  try {
    return readyOf(saga);
  } catch {
    return null;
  }
}

function limitMsOf(ready: Ready | null): number {
  return (ready?.within_s ?? DEFAULT_WITHIN_S) * 1_000;
}

function checksWithThis(run: StepRun): number {
  return (run.memo['polls'] ?? 0) + 1;
}
