// Regenerates docs/schemas/. Run `npm run schemas` after a change of a zod schema.
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { jsonSchemas } from './json-schemas.ts';

const folder = fileURLToPath(new URL('../docs/schemas/', import.meta.url));
rmSync(folder, { recursive: true, force: true });
mkdirSync(folder, { recursive: true });
for (const [file, text] of jsonSchemas()) writeFileSync(`${folder}${file}`, text);
