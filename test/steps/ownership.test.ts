// Whose droplet is it? DigitalOcean keeps the spelling in which a tag was first used, whatever a create asks for: what tags
// say does not depend on their case.
import { describe, expect, test } from 'vitest';
import type { Droplet } from '../../src/do/schemas.ts';
import { dropletSchema } from '../../src/do/schemas.ts';
import {
  contradiction,
  isAdoptable,
  isProvenOurs,
  mayBecomeOurs,
  otherOwner,
  sagaIdTag,
  sagaIdsOn,
  sagaTag,
  waveOf,
} from '../../src/steps/ownership.ts';
import { isReservedTag, isSagaTag } from '../../src/steps/tags.ts';
import { bearsOurTags, sagaIdOn } from '../../src/inventory/sync/orphan-verdict.ts';
import { makeSaga } from '../support/engine.ts';

const saga = makeSaga({ id: 'abcdef01-0000-4000-8000-00000000000a', input: { name: 'web-1' } });
const otherTag = 'arcadia-saga-id-abcdef01-0000-4000-8000-00000000000b';

/** A droplet of the saga's name, made with it. */
function dropletWith(...tags: string[]): Droplet {
  return dropletSchema.parse({ id: 7, name: 'web-1', status: 'active', created_at: saga.createdAt.toISOString(), tags });
}

describe.each<[string, (tag: string) => string]>([
  ['as we write them', (tag) => tag],
  ['in capitals', (tag) => tag.toUpperCase()],
])('tags %s', (_how, spelled) => {
  test('prove a droplet ours, and let it be adopted', () => {
    const droplet = dropletWith(spelled(sagaTag(saga)), spelled(sagaIdTag(saga)));
    expect([isProvenOurs(droplet, saga), isAdoptable(droplet, saga), otherOwner(droplet, saga)]).toEqual([true, true, null]);
    expect(isAdoptable(dropletWith(spelled(sagaTag(saga))), saga)).toBe(true);
    expect([sagaIdsOn(droplet), sagaIdOn(droplet)]).toEqual([[saga.id], saga.id]);
  });

  test('of another saga speak against it', () => {
    for (const droplet of [dropletWith(spelled(otherTag)), dropletWith(sagaTag(saga), sagaIdTag(saga), spelled(otherTag))]) {
      expect([isProvenOurs(droplet, saga), isAdoptable(droplet, saga)]).toEqual([false, false]);
      expect([otherOwner(droplet, saga), contradiction(droplet, saga)]).toEqual([expect.any(String), expect.any(String)]);
    }
  });

  test('with the full id outweigh a clock that says the droplet is older than the saga', () => {
    const old = { ...dropletWith(spelled(sagaIdTag(saga))), created_at: '2020-01-01T00:00:00Z' };
    expect([contradiction(old, saga), contradiction({ ...old, tags: [] }, saga)]).toEqual([null, expect.stringContaining('before the saga')]);
  });

  test('that callers must not set are told', () => {
    for (const tag of [sagaTag(saga), sagaIdTag(saga), 'managed-by-arcadia-cloud', 'arcadia-wave-7']) expect(isReservedTag(spelled(tag))).toBe(true);
    expect([isSagaTag(spelled(sagaTag(saga))), isReservedTag(spelled('web'))]).toEqual([true, false]);
  });

  test('of any saga or fleet of ours end the wait for tags, and have the orphan sweep look', () => {
    for (const tag of [spelled('managed-by-arcadia-cloud'), spelled(otherTag)]) {
      expect([mayBecomeOurs(dropletWith(tag), saga), bearsOurTags(dropletWith(tag))]).toEqual([false, true]);
    }
    expect([mayBecomeOurs(dropletWith(spelled('web')), saga), bearsOurTags(dropletWith(spelled('web')))]).toEqual([true, false]);
  });

  test('name the wave, as the droplet spells it', () => {
    expect(waveOf(dropletWith('web', spelled('arcadia-wave-7')))).toBe(spelled('arcadia-wave-7'));
  });
});
