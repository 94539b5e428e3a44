// Sealing: what opens, with which keys, for whom; and that neither a key nor a text can be read from what is stored or shown.

import { inspect } from 'node:util';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BrokenSealError, MissingKeyError, fingerprint, generateKey, matchesFingerprint, open, parseKeyRing, seal } from '../../src/platform/key-ring.ts';

const [oldKey, newKey] = [generateKey(), generateKey()];
const [before, during, after] = [parseKeyRing(oldKey), parseKeyRing(`${newKey},${oldKey}`), parseKeyRing(newKey)];

const bytesOf = (sealed: string): Buffer[] => sealed.split('.').map((part, index) => Buffer.from(part, index < 2 ? 'utf8' : 'base64url'));

function opens(sealed: string): boolean {
  try {
    open(before, 'saga', sealed);
    return true;
  } catch (error) {
    if (error instanceof BrokenSealError || error instanceof MissingKeyError) return false;
    throw error;
  }
}

describe('a key ring', () => {
  test.each([
    ['nothing', ''],
    ['words', 'hunter2'],
    ['16 bytes', Buffer.alloc(16, 1).toString('base64')],
    ['33 bytes', Buffer.alloc(33, 1).toString('base64')],
    ['hexadecimals', Buffer.alloc(32, 1).toString('hex')],
    ['32 bytes of zero', Buffer.alloc(32).toString('base64')],
    ['an empty place', `${oldKey},`],
    ['the same key twice', `${oldKey},${oldKey}`],
  ])('is not made of %s, and the error says what was expected and nothing of the text', (_what, text) => {
    expect(() => parseKeyRing(text)).toThrow(/^expected keys separated by commas.*32 random bytes in base64.*rand -base64 32` prints them$/);
  });

  test('takes base64 as openssl prints it, without its padding, and for URLs', () => {
    const bytes = Buffer.alloc(32, 0xfb);
    const rings = [bytes.toString('base64'), bytes.toString('base64').replace('=', ''), bytes.toString('base64url'), ` ${bytes.toString('base64')} `].map(parseKeyRing);
    expect(new Set(rings.map(({ keys }) => keys[0]?.id)).size).toBe(1);
  });

  test('shows no key, however it is printed', () => {
    const shown = inspect(during, { depth: 10, showHidden: true }) + JSON.stringify(during);
    for (const key of [oldKey, newKey]) {
      expect(shown).not.toContain(key);
      expect(shown).not.toContain(Buffer.from(key, 'base64').toString('hex'));
    }
  });
});

describe('a sealed text', () => {
  test('opens again, whatever it is', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), fc.string(), (text, owner) => {
        expect(open(before, owner, seal(before, owner, text))).toBe(text);
      }),
    );
  });

  test('is another one each time, and carries its version and the id of its key', () => {
    const [one, two] = [seal(before, 'saga', 'text'), seal(before, 'saga', 'text')];
    expect(one).not.toBe(two);
    expect(one).toMatch(new RegExp(`^v1\\.${before.keys[0]?.id}\\.[\\w-]{16}\\.[\\w-]{22}\\.[\\w-]+$`));
  });

  test('is sealed by the newest key and opened by each, so that keys can be rotated', () => {
    const [old, fresh] = [seal(before, 'saga', 'text'), seal(during, 'saga', 'text')];
    expect([open(during, 'saga', old), open(during, 'saga', fresh), open(after, 'saga', fresh)]).toEqual(['text', 'text', 'text']);
    expect(() => open(before, 'saga', fresh)).toThrow(new MissingKeyError(after.keys[0]?.id ?? ''));
    expect(() => open(after, 'saga', old)).toThrow(new MissingKeyError(before.keys[0]?.id ?? ''));
  });

  test('does not open for another owner', () => {
    expect(() => open(before, 'another saga', seal(before, 'saga', 'text'))).toThrow('was copied from elsewhere');
  });

  test('does not open once any character of it was changed, or any was cut off', () => {
    const sealed = seal(before, 'saga', 'some text');
    const places = Array.from(sealed, (_, at) => at);
    const changed = places.map((at) => `${sealed.slice(0, at)}${sealed[at] === 'A' ? 'B' : 'A'}${sealed.slice(at + 1)}`);
    // The last bits of base64 may mean nothing.
    const differing = changed.filter((text) => bytesOf(text).some((part, index) => !part.equals(bytesOf(sealed)[index] ?? Buffer.of())));
    const cut = places.map((at) => sealed.slice(0, at));
    expect(differing.length).toBeGreaterThan(sealed.length - 4);
    expect([...differing, ...cut].filter((text) => opens(text))).toEqual([]);
  });
});

describe('a fingerprint', () => {
  test('tells the same text of the same owner from any other, after a rotation too', () => {
    const known = fingerprint(before, 'saga', 'text');
    expect([matchesFingerprint(before, 'saga', 'text', known), matchesFingerprint(during, 'saga', 'text', known)]).toEqual([true, true]);
    expect([matchesFingerprint(before, 'saga', 'texts', known), matchesFingerprint(before, 'other', 'text', known)]).toEqual([false, false]);
  });

  test('says so when its key is gone', () => {
    expect(() => matchesFingerprint(after, 'saga', 'text', fingerprint(before, 'saga', 'text'))).toThrow(/^sealed with the key [0-9a-f]{8}, which is not among/);
  });
});
