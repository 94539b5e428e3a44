// Drift: what was asked for against what is there.

import { describe, expect, test } from 'vitest';
import { acceptDifference, findDifferences } from '../../src/inventory/drift.ts';
import { acceptDrift, listDrift } from '../../src/inventory/drift-store.ts';
import { listAudit } from '../../src/saga/audit.ts';
import { useInventoryStage } from './stage.ts';

const scene = useInventoryStage();
const spec = { size_slug: 's-1vcpu-1gb', region: 'fra1', image: 'debian-12-x64' };
const actual = { isDeleted: false, sizeSlug: 's-1vcpu-1gb', region: 'fra1', image: { id: 7, slug: 'debian-12-x64' }, status: 'active' };

const fieldsOf = (desired: object, there: object) => findDifferences({ ...spec, ...desired }, { ...actual, ...there }).map(({ field, desired: wanted, actual: found }) => `${field}: ${wanted} -> ${found}`);

/** A droplet on record as provisioned, as it was asked for. */
const provisioned = async () => {
  const stage = await scene();
  const sagaId = await stage.saga({ status: 'completed' });
  const [id = 0] = stage.add(1);
  await stage.sync();
  await stage.provision(id, sagaId);
  expect((await stage.sync()).drift).toEqual([]);
  return { ...stage, id, sagaId, open: () => listDrift(stage.db, { withResolved: false, limit: 10 }) };
};

describe('what counts as a difference', () => {
  test.each([
    ['nothing', {}, {}, []],
    ['another size', {}, { sizeSlug: 's-2vcpu-4gb' }, ['size_slug: s-1vcpu-1gb -> s-2vcpu-4gb']],
    ['another region', {}, { region: 'nyc3' }, ['region: fra1 -> nyc3']],
    ['a region that was asked for by its beginning', { region: 'nyc' }, { region: 'nyc3' }, []],
    ['another region than the beginning says', { region: 'nyc' }, { region: 'sfo3' }, ['region: nyc -> sfo3']],
    ['any region, where none was asked for', { region: null }, { region: 'sfo3' }, []],
    ['another image', {}, { image: { id: 8, slug: 'ubuntu-24-04-x64' } }, ['image: debian-12-x64 -> ubuntu-24-04-x64']],
    ['an image whose slug a newer one bears now', {}, { image: { id: 6, slug: null } }, []],
    ['an image by its id', { image: 7 }, {}, []],
    ['another image than the id says', { image: '7' }, { image: { id: 8, slug: null } }, ['image: 7 -> 8']],
    ['an image that no sync has seen yet', {}, { image: null }, []],
    ['slugs in another case', { size_slug: 'S-1VCPU-1GB', region: 'FRA1', image: 'Debian-12-x64' }, {}, []],
    ['slugs in the API\'s own other case', {}, { sizeSlug: 'S-1vcpu-1gb', region: 'Fra1' }, []],
    ['a region that was asked for by its beginning, in capitals', { region: 'NYC' }, { region: 'nyc3' }, []],
    ['another region than the beginning in capitals says', { region: 'NYC' }, { region: 'sfo3' }, ['region: NYC -> sfo3']],
    ['another size, in capitals', { size_slug: 'S-2VCPU-4GB' }, {}, ['size_slug: S-2VCPU-4GB -> s-1vcpu-1gb']],
    ['off', {}, { status: 'off' }, ['power_state: active -> off']],
    ['off, and accepted as such', { power_state: 'off' }, { status: 'off' }, []],
    ['on its way', {}, { status: 'provisioning' }, []],
    ['gone, whatever else', {}, { isDeleted: true, status: 'off', region: 'nyc3' }, ['existence: present -> absent']],
    ['two at once', {}, { sizeSlug: 's-2vcpu-4gb', status: 'off' }, ['size_slug: s-1vcpu-1gb -> s-2vcpu-4gb', 'power_state: active -> off']],
  ])('%s', (_what, desired, there, expected) => {
    expect(fieldsOf(desired, there)).toEqual(expected);
  });

  test('accepting makes it what is desired; accepting that it is gone, that nothing is', () => {
    const there = { ...actual, sizeSlug: 's-2vcpu-4gb', status: 'off' };
    const accepted = findDifferences(spec, there).reduce<typeof spec>((desired, difference) => ({ ...desired, ...acceptDifference(desired, difference) }), spec);
    expect(findDifferences(accepted, there)).toEqual([]);
    expect(acceptDifference(spec, { field: 'existence', actual: 'absent' })).toBeNull();
  });
});

describe('a provisioned droplet', () => {
  test('resized by hand shows at the next sync, once, and resolves when it is put back', async () => {
    const { db, sync, sandbox, id, sagaId, open, log } = await provisioned();
    sandbox.editDroplet(id, { size_slug: 's-2vcpu-4gb' });
    const report = await sync();
    expect(report.drift).toMatchObject([{ providerId: String(id), field: 'size_slug', desired: 's-1vcpu-1gb', actual: 's-2vcpu-4gb', sagaId }]);
    expect((await sync()).drift).toEqual([]);
    const [drift] = await open();
    expect(drift?.lastSeenAt.getTime()).toBeGreaterThan(drift?.firstSeenAt.getTime() ?? Infinity);
    expect(log.filter(({ msg }) => msg === 'drift found')).toMatchObject([{ dropletId: String(id), field: 'size_slug' }]);
    sandbox.editDroplet(id, { size_slug: 's-1vcpu-1gb' });
    expect((await sync()).summary.resolved).toBe(1);
    expect(await open()).toEqual([]);
    expect(await listDrift(db, { withResolved: true, limit: 10 })).toMatchObject([{ id: drift?.id, resolution: 'put_back' }]);
    expect((await listAudit(db, sagaId)).map(({ actor, action }) => `${actor} ${action}`)).toEqual(['sync drift_found', 'sync drift_resolved']);
  });

  test('whose drift is accepted is held to what it is now', async () => {
    const { db, sync, sandbox, id, sagaId, open } = await provisioned();
    sandbox.editDroplet(id, { size_slug: 's-2vcpu-4gb', status: 'off' });
    await sync();
    const [size, power] = await open();
    expect((await acceptDrift(db, size?.id ?? 0, 'cli:ada')).kind).toBe('accepted');
    expect((await acceptDrift(db, size?.id ?? 0, 'cli:ada')).kind).toBe('resolved');
    expect((await acceptDrift(db, 4_711, 'cli:ada')).kind).toBe('not_found');
    expect(await open()).toMatchObject([{ id: power?.id, field: 'power_state', desired: 'active', actual: 'off' }]);
    expect((await sync()).summary).toMatchObject({ drifted: 0, resolved: 0 });
    const [row] = await db.sql<{ spec: object }[]>`select spec from arcadia.cloud_provisioned`;
    expect(row?.spec).toEqual({ size_slug: 's-2vcpu-4gb', region: 'nyc3', image: 'debian-12-x64' });
    expect((await listAudit(db, sagaId)).at(-1)).toMatchObject({ actor: 'cli:ada', action: 'drift_accepted', detail: { field: 'size_slug', actual: 's-2vcpu-4gb' } });
    sandbox.editDroplet(id, { size_slug: 's-1vcpu-1gb' });
    expect((await sync()).drift).toMatchObject([{ field: 'size_slug', desired: 's-2vcpu-4gb', actual: 's-1vcpu-1gb' }]);
  });

  test('that vanished is drift until that is accepted; then nothing is desired', async () => {
    const { db, sync, sandbox, id, open } = await provisioned();
    sandbox.editDroplet(id, { vanish: true });
    expect((await sync()).drift).toMatchObject([{ field: 'existence', desired: 'present', actual: 'absent' }]);
    expect((await acceptDrift(db, (await open())[0]?.id ?? 0, 'cli:ada')).kind).toBe('accepted');
    expect((await sync()).summary).toMatchObject({ drifted: 0 });
    expect(await open()).toEqual([]);
  });

  test('that is destroyed on request leaves no drift behind', async () => {
    const { db, sync, sandbox, id, open } = await provisioned();
    sandbox.editDroplet(id, { status: 'off' });
    await sync();
    sandbox.editDroplet(id, { vanish: true });
    await db.sql`update arcadia.cloud_resources set deleted_at = clock_timestamp()`;
    await db.sql`update arcadia.cloud_provisioned set released_at = clock_timestamp()`;
    await sync();
    expect(await open()).toEqual([]);
    expect(await listDrift(db, { withResolved: true, limit: 10 })).toMatchObject([{ resolution: 'released' }]);
  });

  test('is not judged while a saga is at work on it', async () => {
    const { sync, saga, sandbox, id } = await provisioned();
    await saga({ name: 'destroy_droplet', status: 'running', input: { droplet_id: id } });
    sandbox.editDroplet(id, { status: 'off' });
    expect((await sync()).drift).toEqual([]);
  });
});
