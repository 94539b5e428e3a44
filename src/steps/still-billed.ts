// Finds out, before a droplet is destroyed, what will stay billed: its volumes, snapshots and reserved addresses. Once per saga. No
// failure of this keeps the droplet from being destroyed.
import { DigitalOceanError } from '../do/errors.ts';
import type { AssociatedResource } from '../do/schemas.ts';
import type { JsonObject } from '../platform/json.ts';
import type { StepOutcome, StepRun } from '../saga/step.ts';
import { StepFailure, failureOf } from '../saga/step.ts';
import type { StillBilled } from './outputs.ts';
import { STILL_BILLED, describeBilled } from './still-billed-words.ts';
import type { StepDeps } from './deps.ts';
import type { Undone } from './failures.ts';

// Thousands of snapshots must not make the saga's row large.
const MOST_LISTED = 100;

/**
 * Reads what will stay billed, once per saga.
 *
 * @returns outputs for the context; empty if they were read before
 * @throws {DigitalOceanError} only if the token is refused altogether: the deletion will wait for the same reason
 */
export async function lookForBilled(dropletId: number, run: Pick<StepRun, 'saga' | 'log'>, { digitalOcean }: Pick<StepDeps, 'digitalOcean'>): Promise<JsonObject> {
  if (run.saga.context[STILL_BILLED] !== undefined) return {};
  try {
    const found = await digitalOcean.listAssociatedResources(dropletId);
    // A droplet that does not exist has no resources.
    return found === null ? {} : { [STILL_BILLED]: found.slice(0, MOST_LISTED).map(toBilled) };
  } catch (error) {
    if (!(error instanceof DigitalOceanError) || error.hold?.isTokenRefused === true) throw error;
    run.log.warn({ dropletId, err: error }, 'could not read what stays billed after the droplet is destroyed: destroying it all the same');
    return { [STILL_BILLED]: null };
  }
}

/**
 * Runs the work of a step and adds these outputs to its outcome, so that no later run reads them again.
 *
 * @param toOutcome converts an error to an outcome; null: rethrow it
 */
export async function withOutputs<Adds extends JsonObject>(run: Pick<StepRun, 'saga'>, outputs: JsonObject, work: () => Promise<StepOutcome<Adds>>, toOutcome: (error: unknown) => Undone | null): Promise<StepOutcome<Adds>> {
  try {
    const outcome = await work();
    if (outcome.kind === 'done') {
      const note = [outcome.note, describeBilled({ context: { ...run.saga.context, ...outputs } })].filter((one) => typeof one === 'string').join('; ');
      return { ...outcome, outputs: { ...outcome.outputs, ...outputs }, note };
    }
    // They were already written: a wait needs no write of its own.
    if (Object.keys(outputs).length === 0 || run.saga.context[STILL_BILLED] !== undefined) return outcome;
    return { ...outcome, outputs: { ...outcome.outputs, ...outputs } };
  } catch (error) {
    const outcome = toOutcome(error);
    if (outcome !== null) return Object.keys(outputs).length === 0 ? outcome : { ...outcome, outputs: { ...outcome.outputs, ...outputs } };
    const thrown = failureOf(error);
    throw thrown === null ? error : new StepFailure(thrown.failure, { ...thrown.outputs, ...outputs });
  }
}

function toBilled({ kind, id, name, usdPerMonth }: AssociatedResource): StillBilled {
  return { kind, id, name, usd_per_month: usdPerMonth };
}
