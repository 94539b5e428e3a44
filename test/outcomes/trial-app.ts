// The app of the chaos run of outcomes: sagas that complete, that are rolled back, and that get stuck until a person has
// retried them.
import { z } from 'zod';
import { defineApp, defineSaga, defineStep } from '../../src/saga/app.ts';
import { done, failed } from '../../src/saga/step.ts';

const first = defineStep({ name: 'first', adds: z.object({ number: z.number() }), execute: ({ saga }) => Promise.resolve(done({ number: Number(saga.input['number']) })), compensate: () => Promise.resolve(done()) });

const second = defineStep({
  name: 'second',
  execute: ({ saga }) => Promise.resolve(saga.input['end'] === 'compensated' ? failed('refused', 'the service refuses it', { retryable: false }) : done()),
  compensate: () => Promise.resolve(done()),
});

// Its first attempt gets stuck; the event of the retry tells the next one that a person was there.
const third = defineStep({
  name: 'third',
  forwardOnly: true,
  execute: ({ saga }) => Promise.resolve(saga.input['end'] === 'stuck' && saga.revision < 6 ? failed('broken', 'it is broken', { retryable: false }) : done()),
  compensate: () => Promise.resolve(done()),
});

export const trial = defineSaga({ name: 'trial', input: z.strictObject({ number: z.int(), end: z.enum(['completed', 'compensated', 'stuck']) }), steps: [first, second, third] });

export default defineApp({ sagas: [trial], deps: () => ({}) });
