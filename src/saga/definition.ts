// A saga's definition: a name, the schema of its input, and its steps as a list. The catalogue is all of them.
import type { z } from 'zod';
import type { JsonObject } from '../platform/json.ts';
import type { Labels } from './labels.ts';
import { nameTwice } from './names.ts';
import type { Saga } from './saga.ts';
import type { Step } from './step.ts';
import type { SagaFacts, SagaWords } from './words.ts';

/**
 * `words`: what it says to people; plain facts where left out. `isDestructive`: it takes away what people have, so that
 * starting it over HTTP needs a scope of its own. `labels`: what its jobs and traces tell of it, such as the id of a server.
 * `secrets`: fields of the input, of text, that are sealed at rest, shown nowhere, and erased at the end.
 */
export type SagaDefinition<Deps> = Readonly<{
  input: z.ZodType<JsonObject>;
  steps: readonly Step<Deps>[];
  words?: Partial<SagaWords>;
  isDestructive?: boolean;
  labels?: (saga: Pick<Saga, 'input' | 'context'>) => Labels;
  secrets?: readonly string[];
  /**
   * What its steps work on, such as `server:4711`; null where it has none, or none yet. Of two sagas with the same resource, the
   * later one runs no step until the first is at rest. It may come with the input or with a step, and does not change afterwards.
   */
  resource?(saga: SagaFacts): string | null | undefined;
}>;

/** The sagas that a process knows, by name. */
export type Catalog<Deps> = Readonly<Record<string, SagaDefinition<Deps>>>;

/**
 * Names of the steps with which sagas begin that must not run before the start of their saga is written. Where one of them begins
 * a saga with a resource too, it is left out: a saga that has to wait for its resource is not started before.
 */
export function stepsToStartAt<Deps>(catalog: Catalog<Deps>): string[] {
  const firstSteps = Object.values(catalog).flatMap(({ resource, steps }) => steps.slice(0, 1).map((step) => ({ step, mayWait: resource !== undefined })));
  const mayWait = new Set(firstSteps.flatMap((first) => (first.mayWait ? first.step.name : [])));
  return firstSteps.flatMap(({ step }) => (step.recordsFirst === true || mayWait.has(step.name) ? [] : step.name));
}

/**
 * Finds a step by name, whichever saga it stands in.
 *
 * @returns undefined for a step that this version of the program does not know
 */
export function findStep<Deps>(catalog: Catalog<Deps>, name: string): Step<Deps> | undefined {
  for (const definition of Object.values(catalog)) {
    const step = definition.steps.find((candidate) => candidate.name === name);
    if (step !== undefined) return step;
  }
  return undefined;
}

/**
 * Checks a catalogue and returns it. Steps are found by name, so one name must mean one step.
 *
 * @throws {Error} naming the saga and the step, when a saga has no steps or the same step twice, or when two steps
 *   share a name
 */
export function checkCatalog<Deps, C extends Catalog<Deps>>(catalog: C & Catalog<Deps>): C {
  const known = new Map<string, Step<Deps>>();
  for (const [saga, definition] of Object.entries(catalog)) {
    if (definition.steps.length === 0) throw new Error(`saga ${saga} has no steps`);
    const twice = nameTwice(definition.steps);
    if (twice !== undefined) throw new Error(`saga ${saga} has step ${twice} twice`);
    for (const step of definition.steps) {
      const other = known.get(step.name);
      if (other !== undefined && other !== step) throw new Error(`two steps are called ${step.name} (saga ${saga})`);
      known.set(step.name, step);
    }
  }
  return catalog;
}
