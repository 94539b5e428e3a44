// Moves a droplet into the project that its saga requested, before it is registered. There is nothing to undo: a
// destroyed droplet leaves its project, and a droplet that a rollback leaves alone because it belongs to another saga was
// never moved.
import { DigitalOceanError } from '../do/errors.ts';
import type { StepRun } from '../saga/step.ts';
import { StepFailure } from '../saga/step.ts';
import type { StepDeps } from './deps.ts';
import { describe } from './failures.ts';
import { recordedProjectId } from './named.ts';
import { waiterOf } from './waiter.ts';

const ASSIGNED: ReadonlySet<string | null> = new Set(['ok', 'assigned', 'already_assigned']);

/**
 * Assigns the saga's droplet, if a project was requested. Safe to repeat.
 *
 * @throws {StepFailure} `project_not_assigned`; permanent if DigitalOcean refuses because the project is gone or the
 *   token lacks a scope: the droplet would continue to cost money in the wrong project
 */
export async function assignProject(dropletId: number, run: Pick<StepRun, 'saga'>, { digitalOcean }: Pick<StepDeps, 'digitalOcean'>): Promise<void> {
  const projectId = recordedProjectId(run.saga);
  if (projectId === null) return;
  const status = await digitalOcean.for(waiterOf(run.saga)).assignToProject(projectId, dropletId).catch((error: unknown) => {
    // If the token itself is refused, the saga waits, as everywhere.
    const isRefused = error instanceof DigitalOceanError && (error.kind === 'rejected' || (error.kind === 'unauthorized' && error.hold?.isTokenRefused === false));
    if (!isRefused) throw error;
    const scopes = error.hold?.scopes ?? [];
    const lack = scopes.length === 0 ? '' : `. The token probably lacks the scope ${scopes.join(' or ')}`;
    throw notAssigned(dropletId, projectId, `${describe(error)}${lack}`, false);
  });
  if (!ASSIGNED.has(status)) throw notAssigned(dropletId, projectId, `DigitalOcean says ${JSON.stringify(status)}`, true);
}

function notAssigned(dropletId: number, projectId: string, why: string, retryable: boolean): StepFailure {
  return new StepFailure({ code: 'project_not_assigned', message: `droplet ${dropletId} could not be put into project ${projectId}: ${why}`, retryable });
}
