// Ids of sagas as people type them: every command that takes one takes its beginning, and names the candidates of several.
import { afterAll, beforeAll, expect, test } from 'vitest';
import { isUuidPrefix, uuidsWithPrefix } from '../../src/platform/uuid.ts';
import type { Fleet } from '../support/fleet.ts';
import { openFleet, runCommand } from '../support/fleet.ts';

const ONE = '4a7d1111-0000-4000-8000-000000000001';
const OTHER = '4a7d2222-0000-4000-8000-000000000002';

let fleet: Fleet;
beforeAll(async () => {
  fleet = await openFleet('postgres');
  await fleet.db.sql`
    insert into arcadia.sagas (id, saga8, name, status, steps, cursor, revision, input, context, error, created_at, updated_at, finished_at)
    select id::uuid, left(id, 8), 'provision_droplet', 'compensated', '{create_droplet}', 0, 2, '{"name": "web-1", "region": "fra1", "size": "s-1vcpu-1gb", "image": "debian-12-x64"}', '{}',
           '{"code": "cancelled", "message": "cancelled", "step": "create_droplet", "retryable": false}', now(), now(), now()
    from unnest(${[ONE, OTHER]}::text[]) as id`;
});
afterAll(() => fleet[Symbol.asyncDispose]());

const commands: readonly Readonly<{ command: string; args: (id: string) => string[] }>[] = [
  { command: 'saga', args: (id) => ['saga', id] },
  { command: 'saga --json', args: (id) => ['saga', id, '--json'] },
  { command: 'saga --follow', args: (id) => ['saga', id, '--follow'] },
  { command: 'cancel', args: (id) => ['cancel', id] },
  { command: 'retry', args: (id) => ['retry', id] },
  { command: 'rerun', args: (id) => ['rerun', id, '--detach'] },
];

const beginnings = ['4A7D1', '4a7d1111', '4a7d1111-0000-4'];
// Each beginning is given to a command that prints it whole, and one of them to each other command.
const taking = commands.filter(({ command }) => command !== 'rerun').map((one, index) => ({ ...one, given: index === 0 ? beginnings : beginnings.slice(index % 3).slice(0, 1) }));
test.each(taking)('$command takes the beginning of an id, in either case, and only as much as is needed: $given', async ({ args, given }) => {
  const [whole, ...short] = await Promise.all([ONE, ...given].map((id) => runCommand(args(id), fleet.environment())));
  expect(whole?.stderr).not.toContain('not found');
  expect(short).toEqual(given.map(() => whole));
});

test('rerun takes it, too: the second time, the saga was run again before', async () => {
  const ended = [await runCommand(['rerun', '4A7D1', '--detach'], fleet.environment()), await runCommand(['rerun', ONE, '--detach'], fleet.environment())];
  expect(ended.map(({ code }) => code)).toEqual([0, 0]);
  expect(ended[1]?.stderr).toContain(`saga ${ONE} was run again before, as saga ${ended[0]?.stdout.trim()}`);
});

test.each(commands)('$command names the candidates of several, and does nothing', async ({ args }) => {
  const before = await fleet.db.sql`select id, revision from arcadia.sagas order by id`;
  const { code, stdout, stderr } = await runCommand(args('4a7d'), fleet.environment());
  expect([code, stdout]).toEqual([2, '']);
  expect(stderr).toMatch(/^arcadia: several sagas have an id that begins with 4a7d; type more of it:$/m);
  for (const id of [ONE, OTHER]) expect(stderr).toMatch(new RegExp(`^  ${id}  provision_droplet, rolled back, started at \\d{4}-`, 'm'));
  expect(await fleet.db.sql`select id, revision from arcadia.sagas order by id`).toEqual(before);
});

test.each(commands)('$command says when no id begins so, and what can be none', async ({ args }) => {
  const [unknown, none] = await Promise.all([runCommand(args('ffffffff-ff'), fleet.environment()), runCommand(args('4a7'), fleet.environment())]);
  expect(unknown).toMatchObject({ code: 1, stdout: '', stderr: 'arcadia: saga ffffffff-ff not found\n' });
  expect(none).toMatchObject({ code: 2, stdout: '' });
  expect(none.stderr).toContain('or at least its first 4 characters), found "4a7"');
});

test.each([
  ['', true],
  ['4a7D', true],
  ['4a7d1111-', true],
  [ONE, true],
  [`${ONE}0`, false],
  ['4a7d11110000', false],
  ['4a7d-', false],
  ['web-1', false],
])('%j begins a UUID: %s', (text, expected) => {
  expect(isUuidPrefix(text)).toBe(expected);
});

test('a range holds exactly the UUIDs that begin so', () => {
  expect(uuidsWithPrefix('4a7d1111-00')).toEqual(['4a7d1111-0000-0000-0000-000000000000', '4a7d1111-00ff-ffff-ffff-ffffffffffff']);
});
