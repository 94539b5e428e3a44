// How to call the program again: from a checkout by its npm scripts, from the installed package by its name.
import { extname } from 'node:path';

const isCheckout = extname(import.meta.url) === '.ts';

/** The command that runs the program, such as `npx arcadia`. */
export const arcadia = isCheckout ? 'npm run -s arcadia --' : 'npx arcadia';

/** The command that runs everything on this machine. */
export const arcadiaDev = isCheckout ? 'npm run dev' : 'npx arcadia dev';
