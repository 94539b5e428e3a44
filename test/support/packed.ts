// The package as users get it: packed once per run from the current sources, and installed without a network, with its
// dependencies linked.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { z } from 'zod';
import { waitFor } from './wait-for.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const folder = `${root}.arcadia/packages`;
const run = promisify(execFile);

const record = z.record(z.string(), z.string());
const manifestSchema = z.object({ dependencies: record, peerDependencies: record, devDependencies: record, files: z.array(z.string()).default([]) });

/** The parts of a package.json that say what is to be installed. */
export type Manifest = z.infer<typeof manifestSchema>;

/** Where the package is, and the files in it. */
export type Packed = Readonly<{ tarball: string; files: readonly string[] }>;

/** Packs the package, where that was not done before for these sources. */
export async function packPackage(): Promise<Packed> {
  const at = `${folder}/${fingerprint()}`;
  await mkdir(folder, { recursive: true });
  if (!existsSync(at)) {
    const isMine = await mkdir(`${at}.lock`).then(() => true, () => false);
    if (isMine) {
      try {
        await pack(at);
      } finally {
        await rm(`${at}.lock`, { recursive: true, force: true });
      }
    } else await waitFor(() => existsSync(at) || !existsSync(`${at}.lock`), { what: 'the package that another test packs', deadlineMs: 120_000, everyMs: 200 });
  }
  if (!existsSync(at)) throw new Error('another test could not pack the package');
  const tarball = join(at, 'package.tgz');
  const { stdout } = await run('tar', ['-tzf', tarball]);
  return { tarball, files: stdout.split('\n').filter((path) => path !== '').map((path) => path.replace(/^package\//, '')) };
}

async function pack(at: string): Promise<void> {
  const unfinished = await mkdtemp(`${at}-`);
  await run('npm', ['pack', '--silent', '--offline', '--pack-destination', unfinished], { cwd: root });
  const [tarball] = readdirSync(unfinished);
  if (tarball === undefined) throw new Error('npm pack left nothing');
  await rename(join(unfinished, tarball), join(unfinished, 'package.tgz'));
  await rename(unfinished, at);
}

/** Unpacks the package, and links the packages that are chosen. Any other is not there: what reaches for it fails. */
export async function installPackage(tarball: string, into: string, choose: (manifest: Manifest) => readonly string[]): Promise<Manifest> {
  const installed = join(into, 'node_modules/arcadia-cloud');
  await mkdir(installed, { recursive: true });
  await run('tar', ['-xzf', tarball, '--strip-components=1', '-C', installed]);
  const found = manifestSchema.parse(JSON.parse(await readFile(join(installed, 'package.json'), 'utf8')));
  // The types are the consumer's own.
  for (const name of new Set([...choose(found), '@types/node', '@types/pg'])) {
    await mkdir(dirname(join(into, 'node_modules', name)), { recursive: true });
    await symlink(join(root, 'node_modules', name), join(into, 'node_modules', name));
  }
  if (!existsSync(join(into, 'package.json'))) await writeFile(join(into, 'package.json'), '{ "type": "module" }');
  return found;
}

function fingerprint(): string {
  const hash = createHash('sha256');
  const { files } = manifestSchema.parse(JSON.parse(readFileSync(`${root}package.json`, 'utf8')));
  // `dist` is made of the sources.
  for (const part of ['package.json', 'README.md', 'LICENSE', 'src', 'script', ...files.filter((name) => name !== 'dist')]) {
    const paths = existsSync(`${root}${part}/`) ? readdirSync(`${root}${part}`, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name)) : [`${root}${part}`];
    for (const path of paths.toSorted()) hash.update(path.slice(root.length)).update(readFileSync(path));
  }
  return hash.digest('hex').slice(0, 16);
}
