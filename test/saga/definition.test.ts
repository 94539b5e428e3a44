import { z } from 'zod';
import { describe, expect, test } from 'vitest';
import { checkCatalog, findStep } from '../../src/saga/definition.ts';
import { fakeStep } from '../support/engine.ts';

const input = z.record(z.string(), z.json());
const make = fakeStep('make');
const paint = fakeStep('paint');

describe('checkCatalog', () => {
  test('returns the catalogue that it was given', () => {
    const catalog = { build: { input, steps: [make, paint] } };
    expect(checkCatalog(catalog)).toBe(catalog);
  });

  test('lets two sagas share a step', () => {
    expect(() => checkCatalog({ build: { input, steps: [make, paint] }, redo: { input, steps: [paint] } })).not.toThrow();
  });

  test('refuses a saga without steps', () => {
    expect(() => checkCatalog({ idle: { input, steps: [] } })).toThrow('saga idle: expected at least one step');
  });

  test('refuses a saga with the same step twice', () => {
    expect(() => checkCatalog({ build: { input, steps: [make, paint, make] } })).toThrow('saga build: step make is listed twice');
  });

  test('refuses two steps of one name, even in different sagas', () => {
    const catalog = { build: { input, steps: [make] }, other: { input, steps: [fakeStep('make')] } };
    expect(() => checkCatalog(catalog)).toThrow('two steps are called make (saga other)');
  });
});

describe('findStep', () => {
  const catalog = { build: { input, steps: [make] }, redo: { input, steps: [paint] } };

  test('finds a step in whichever saga it stands', () => {
    expect(findStep(catalog, 'paint')).toBe(paint);
  });

  test.each(['', 'unknown', '__proto__', 'constructor', 'toString'])('knows no step called %j', (name) => {
    expect(findStep(catalog, name)).toBeUndefined();
  });
});
