import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { classify, type Answer, type Method, type OutcomeKind } from '../../src/do/outcome.ts';

const methods: readonly Method[] = ['GET', 'POST', 'DELETE'];
const bodies: readonly Answer['body'][] = ['valid', 'invalid', 'html'];
const kinds: readonly OutcomeKind[] = [
  'done', 'absent', 'rejected', 'throttled', 'unauthorized', 'later', 'ambiguous',
];

// Each row: status, body, then what it means for GET, POST and DELETE.
const answers: readonly [number, Answer['body'], OutcomeKind, OutcomeKind, OutcomeKind][] = [
  [100, 'invalid', 'later', 'ambiguous', 'later'],
  [101, 'invalid', 'later', 'ambiguous', 'later'],
  [200, 'valid', 'done', 'done', 'later'],
  [200, 'invalid', 'later', 'ambiguous', 'later'],
  [200, 'html', 'later', 'ambiguous', 'later'],
  [201, 'valid', 'done', 'done', 'later'],
  [202, 'valid', 'done', 'done', 'later'],
  [202, 'invalid', 'later', 'ambiguous', 'later'],
  [204, 'invalid', 'later', 'ambiguous', 'done'],
  [204, 'valid', 'done', 'done', 'done'],
  [301, 'html', 'later', 'ambiguous', 'later'],
  [302, 'invalid', 'later', 'ambiguous', 'later'],
  [303, 'invalid', 'later', 'ambiguous', 'later'],
  [304, 'invalid', 'later', 'ambiguous', 'later'],
  [307, 'invalid', 'later', 'ambiguous', 'later'],
  [308, 'invalid', 'later', 'ambiguous', 'later'],
  [400, 'invalid', 'rejected', 'rejected', 'rejected'],
  [401, 'invalid', 'unauthorized', 'unauthorized', 'unauthorized'],
  [402, 'invalid', 'rejected', 'rejected', 'rejected'],
  [403, 'html', 'unauthorized', 'unauthorized', 'unauthorized'],
  [404, 'valid', 'absent', 'rejected', 'absent'],
  [404, 'invalid', 'absent', 'rejected', 'absent'],
  [404, 'html', 'later', 'rejected', 'later'],
  [405, 'invalid', 'rejected', 'rejected', 'rejected'],
  [408, 'invalid', 'later', 'ambiguous', 'later'],
  [409, 'invalid', 'later', 'ambiguous', 'later'],
  [410, 'invalid', 'rejected', 'rejected', 'rejected'],
  [412, 'invalid', 'rejected', 'rejected', 'rejected'],
  [413, 'html', 'rejected', 'rejected', 'rejected'],
  [422, 'invalid', 'rejected', 'rejected', 'later'],
  [423, 'invalid', 'later', 'ambiguous', 'later'],
  [425, 'invalid', 'later', 'ambiguous', 'later'],
  [429, 'invalid', 'throttled', 'throttled', 'throttled'],
  [429, 'html', 'throttled', 'throttled', 'throttled'],
  [444, 'invalid', 'later', 'ambiguous', 'later'],
  [460, 'invalid', 'later', 'ambiguous', 'later'],
  [499, 'html', 'later', 'ambiguous', 'later'],
  [500, 'invalid', 'later', 'ambiguous', 'later'],
  [502, 'html', 'later', 'ambiguous', 'later'],
  [503, 'invalid', 'later', 'ambiguous', 'later'],
  [504, 'html', 'later', 'ambiguous', 'later'],
  [599, 'invalid', 'later', 'ambiguous', 'later'],
];

describe('what a reply means', () => {
  test.each(answers)('answers a %i with a body that is %s by the table', (status, body, get, post, destroy) => {
    expect(methods.map((method) => classify(method, { status, body }))).toEqual([get, post, destroy]);
  });

  test('calls a request that was never sent harmless to repeat, a POST too', () => {
    for (const method of methods) expect(classify(method, { status: null, requestSent: false })).toBe('later');
  });

  test('calls only a POST ambiguous when it was sent and not answered', () => {
    expect(methods.map((method) => classify(method, { status: null, requestSent: true }))).toEqual([
      'later', 'ambiguous', 'later',
    ]);
  });

  const anyReply = fc.oneof(
    fc.record({ status: fc.oneof(fc.integer({ min: 100, max: 599 }), fc.double()), body: fc.constantFrom(...bodies) }),
    fc.record({ status: fc.constant(null), requestSent: fc.boolean() }),
  );

  test('is known for every method and every reply', () => {
    fc.assert(fc.property(fc.constantFrom(...methods), anyReply, (method, reply) => {
      expect(kinds).toContain(classify(method, reply));
    }));
  });

  test('never calls a POST absent, nor anything but a POST ambiguous', () => {
    fc.assert(fc.property(fc.constantFrom(...methods), anyReply, (method, reply) => {
      expect(classify(method, reply)).not.toBe(method === 'POST' ? 'absent' : 'ambiguous');
    }));
  });

  test('calls no POST harmless once it was sent, unless its status is a refusal', () => {
    fc.assert(fc.property(anyReply, (reply) => {
      const neverSent = reply.status === null && !reply.requestSent;
      const refused = reply.status !== null && reply.status >= 400 && reply.status <= 499;
      const allowed = neverSent ? ['later'] : ['done', 'ambiguous', ...(refused ? ['rejected', 'throttled', 'unauthorized'] : [])];
      expect(allowed).toContain(classify('POST', reply));
    }));
  });

  test('calls a DELETE done for a 204 alone', () => {
    fc.assert(fc.property(anyReply, (reply) => {
      expect(classify('DELETE', reply) === 'done').toBe(reply.status === 204);
    }));
  });
});
