// What is hidden of user data in a log, and what stays readable.
import { describe, expect, test } from 'vitest';
import { hideUserData } from '../../src/steps/hide-user-data.ts';

describe('in a log', () => {
  test.each([
    ['a whole line', 'systemctl restart web', '+ systemctl restart web', '+ [line 1 of user_data]'],
    ['the value of a variable, wherever it stands', 'TOKEN=correct-horse', 'GET /?t=correct-horse 403', 'GET /?t=[user_data] 403'],
    ['a quoted value', "password: 'correct horse'", 'login with correct horse failed', 'login with [user_data] failed'],
    ['a word with digits', 'login --key s3cr3tkey web', 'bad key s3cr3tkey', 'bad key [user_data]'],
  ])('%s is hidden', (_what, userData, log, shown) => {
    expect(hideUserData(log, userData)).toBe(shown);
  });

  test('short lines and words, and what the script did not say, stay', () => {
    const log = 'Reading package lists...\nE: Unable to locate package ngix\nfailed: apt-get install';
    expect(hideUserData(log, '#!/bin/sh\nset -e\nfi\ndone\n')).toBe(log);
    expect(hideUserData(log, '')).toBe(log);
  });
});
