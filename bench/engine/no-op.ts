// A saga of three steps that do nothing, or only wait.
import { setTimeout as delay } from 'node:timers/promises';
import { z } from 'zod';
import type { JsonObject } from '../../src/platform/json.ts';
import type { Catalog } from '../../src/saga/definition.ts';
import { done } from '../../src/saga/step.ts';
import type { Step } from '../../src/saga/step.ts';
import type { StepDeps } from '../../src/steps/deps.ts';

/**
 * @param options.stepMs how long each step waits, in milliseconds; 0: not at all
 * @param options.onLastStep called in the last step of each saga, before its result is written
 */
export function noOpCatalog({ stepMs = 0, onLastStep = () => undefined }: { stepMs?: number; onLastStep?: (sagaId: string) => void }): Catalog<StepDeps> {
  const step = (name: string, onExecute: (sagaId: string) => void = () => undefined): Step<StepDeps> => ({
    name,
    recordsFirst: true,
    execute: async (run) => {
      onExecute(run.saga.id);
      if (stepMs > 0) await delay(stepMs);
      return done();
    },
    compensate: () => Promise.resolve(done()),
  });
  return { no_op: { input: z.custom<JsonObject>(), steps: [step('step_1'), step('step_2'), step('step_3', onLastStep)] } };
}
