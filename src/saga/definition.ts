// A saga's definition: a name, the schema of its input, and a list of steps. The catalog contains all definitions.
import type { z } from 'zod';
import type { Database } from '../platform/db.ts';
import type { JsonObject } from '../platform/json.ts';
import type { Labels } from './labels.ts';
import { requireSteps } from './names.ts';
import type { Saga } from './saga.ts';
import type { Step } from './step.ts';
import type { SagaFacts, SagaWords } from './saga-words.ts';

/**
 * `words`: what it says to people; plain facts where left out. `isDestructive`: it takes away what people have, or makes that possible, so that
 * starting it over HTTP needs a scope of its own. `labels`: what its jobs and traces tell of it, such as the id of a server.
 * `secrets`: fields of the input, of text, that are sealed at rest, shown nowhere, and erased at the end.
 */
export type SagaDefinition<Deps> = Readonly<{
  input: z.ZodType<JsonObject>;
  steps: readonly Step<Deps>[];
  words?: Partial<SagaWords>;
  isDestructive?: boolean;
  /** Before there was a scope for what is destructive, the right to start sagas was enough to start it: some tokens may still. */
  startSufficed?: boolean;
  labels?: (saga: Pick<Saga, 'input' | 'context'>) => Labels;
  secrets?: readonly string[];
  /**
   * What its steps work on, such as `server:4711`; null if it has no resource, or none yet. If two sagas have the same
   * resource, the later one runs no step until the first is at rest. The resource may come from the input or from a step.
   * It does not change afterwards.
   */
  resource?(saga: SagaFacts): string | null | undefined;
  /**
   * Why the saga cannot be started with this input at the moment; null: it can. This only spares callers a saga that
   * would fail. The step itself must check its preconditions.
   */
  refusal?(db: Pick<Database, 'run'>, input: JsonObject, deployment: Deployment): Promise<Refusal | null>;
}>;

/**
 * What a process that starts sagas knows of the deployment. `publicUrl`: address of the web. `longestLeaseS`: LEASE_MAX_S. Null: not set;
 * undefined: not known here.
 */
export type Deployment = Readonly<{ publicUrl?: string | null; longestLeaseS?: number | null }>;

/** Why a saga cannot be started. `code` is for programs, `message` for people; `field`: the field of the input that is refused. */
export type Refusal = Readonly<{ code: string; message: string; field?: string }>;

/** The sagas that a process knows, by name. */
export type Catalog<Deps> = Readonly<Record<string, SagaDefinition<Deps>>>;

/**
 * Returns the names of first steps that must not run before the start of their saga is written. Omits a step that is also
 * the first step of a saga with a resource: a saga that has to wait for its resource has not started.
 */
export function stepsToStartAt<Deps>(catalog: Catalog<Deps>): string[] {
  const firstSteps = Object.values(catalog).flatMap(({ resource, steps }) => steps.slice(0, 1).map((step) => ({ step, mayWait: resource !== undefined })));
  const mayWait = new Set(firstSteps.flatMap((first) => (first.mayWait ? first.step.name : [])));
  return firstSteps.flatMap(({ step }) => (step.recordsFirst === true || mayWait.has(step.name) ? [] : step.name));
}

/**
 * Finds a step by name in any saga.
 *
 * @returns undefined if this version of the program does not know the step
 */
export function findStep<Deps>(catalog: Catalog<Deps>, name: string): Step<Deps> | undefined {
  for (const definition of Object.values(catalog)) {
    const step = definition.steps.find((candidate) => candidate.name === name);
    if (step !== undefined) return step;
  }
  return undefined;
}

/**
 * Checks a catalog and returns it. Steps are found by name, so one name must mean one step.
 *
 * @throws {TypeError} naming the saga and the step, if a saga has no steps or the same step twice, or if two steps share
 *   a name
 */
export function checkCatalog<Deps, C extends Catalog<Deps>>(catalog: C & Catalog<Deps>): C {
  const known = new Map<string, Step<Deps>>();
  for (const [saga, definition] of Object.entries(catalog)) {
    requireSteps(saga, definition.steps);
    for (const step of definition.steps) {
      const other = known.get(step.name);
      if (other !== undefined && other !== step) throw new TypeError(`two steps are called ${step.name} (saga ${saga})`);
      known.set(step.name, step);
    }
  }
  return catalog;
}
