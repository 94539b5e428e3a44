// Text of others: how it is cut, and that nothing in it stays invisible.
import { expect, test } from 'vitest';
import { isLongerThan, printable, shorten, visible, visibleLines } from '../../src/platform/text.ts';

test.each([
  ['an escape sequence', '\u001b[2J', String.raw`\x1b[2J`],
  ['a line break that forges a line', 'web\nstatus  completed\r', String.raw`web\nstatus  completed\r`],
  ['C1 controls, which some terminals obey', '\u009b31m\u0085', String.raw`\u009b31m\u0085`],
  ['bidi overrides and isolates', '\u202egnp\u2066x\u2069\u200f', String.raw`\u202egnp\u2066x\u2069\u200f`],
  ['zero width characters', 'a\u200bb\u200d\u2060\ufeffc', String.raw`a\u200bb\u200d\u2060\ufeffc`],
  ['separators of lines', '\u2028\u2029', String.raw`\u2028\u2029`],
  ['tags beyond the basic plane, which spell text unseen', '\u{e0041}', String.raw`\udb40\udc41`],
  ['half a surrogate pair', '\ud800', String.raw`\ud800`],
  ['fillers that have no glyph', '\u3164\u115f', String.raw`\u3164\u115f`],
  ['what can be seen', 'Zoë «שלום» 日本 e\u0301 🦀 ❤\ufe0f \\ <b>', 'Zoë «שלום» 日本 e\u0301 🦀 ❤\ufe0f \\ <b>'],
])('visible shows %s', (_what, text, shown) => {
  expect(visible(text)).toBe(shown);
});

test('visibleLines keeps line breaks and tabs', () => {
  expect(visibleLines('a\n\tb\r\u001b')).toBe('a\n\tb\\r\\x1b');
});

test('printable makes one line of every text, name and list in a value, and leaves the rest', () => {
  const at = new Date(0);
  expect(printable({ at, 'a\nb': ['\u001b', { count: 7, none: null }] })).toEqual({ at, 'a\\nb': [String.raw`\x1b`, { count: 7, none: null }] });
});

test('JSON stays the same JSON, with nothing in it that a terminal would obey', () => {
  const value = { text: '\u001b\u009b\u00ad\u007f\u202e\u{e0041}\u2028"\\\n', '\u202e': 1 };
  const written = visibleLines(JSON.stringify(value));
  expect(JSON.parse(written)).toEqual(value);
  expect(written).toMatch(/^[\x20-\x7e]*$/);
});

test.each([
  ['short', 5, 'short'],
  ['too long', 5, 'too …'],
  ['abc🦀', 4, 'abc…'],
  ['abc🦀def', 5, 'abc…'],
])('shorten never leaves half a character: %s to %i', (text, max, cut) => {
  expect(shorten(text, max)).toBe(cut);
});

test.each([
  ['abc', 3, false],
  ['abcd', 3, true],
  ['🚀🚀🚀', 3, false],
  ['🚀🚀🚀!', 3, true],
  ['🚀🚀🚀🚀', 3, true],
  // Each half of a pair counts when it stands alone.
  ['\ud83d\ud83d\ud83d', 3, false],
  ['\ude80\ud83d\ud83d\ud83d', 3, true],
])('isLongerThan counts %j as Postgres does: more than %i is %s', (text, max, isLonger) => {
  expect(isLongerThan(text, max)).toBe(isLonger);
});
