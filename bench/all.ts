// Runs all benchmarks, one after another, each in its own process. Prints their tables, or one JSON document with the figures
// of each benchmark under its name. Takes more than an hour on an idle machine. --small takes a minute, measures nothing, and
// only shows that every benchmark works.
//
//   node bench/all.ts [--parts engine,workers,requests,growth,many,memory,load,fair,pace,pages,sync] [--small] [--json]
//
// Exits with 1 if a benchmark failed or missed its limit.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { readOptions } from './options.ts';

// With Node's own flags of each. The sync's looks at the heap.
const flagsOf: Readonly<Record<string, readonly string[]>> = { engine: [], workers: [], requests: [], growth: [], many: [], memory: [], load: [], fair: [], pace: [], pages: [], sync: ['--expose-gc'] };

const options = readOptions({ parts: Object.keys(flagsOf).join(',') }, {});
const parts = options.parts.split(',');
const unknown = parts.filter((part) => !(part in flagsOf));
if (unknown.length > 0) throw new Error(`--parts: ${unknown.join(', ')}: none of ${Object.keys(flagsOf).join(', ')}`);
const handedOn = [...(options.small ? ['--small'] : []), ...(options.json ? ['--json'] : [])];
const figures: Record<string, unknown> = {};
const failed: string[] = [];
for (const part of parts) {
  process.stderr.write(`== ${part}\n`);
  const program = fileURLToPath(new URL(`${part}.ts`, import.meta.url));
  const child = spawn(process.execPath, [...(flagsOf[part] ?? []), program, ...handedOn], { stdio: ['ignore', options.json ? 'pipe' : 'inherit', 'inherit'] });
  const ended = once(child, 'exit');
  const said = child.stdout === null ? '' : await text(child.stdout);
  const [code]: unknown[] = await ended;
  if (code !== 0) failed.push(part);
  figures[part] = said === '' ? null : JSON.parse(said);
}
if (options.json) process.stdout.write(`${JSON.stringify(figures)}\n`);
if (failed.length > 0) {
  process.stderr.write(`failed, or missed a limit: ${failed.join(', ')}\n`);
  process.exitCode = 1;
}
