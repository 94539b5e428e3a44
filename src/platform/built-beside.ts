// Resolves modules that start as separate processes: TypeScript files in the source tree, JavaScript files in the built
// package.
import { extname } from 'node:path';

/**
 * Returns the URL of another module, with the caller's file extension.
 *
 * @param path the module's path relative to the caller, without its extension
 * @param asking the caller's `import.meta.url`
 */
export function builtBeside(path: string, asking: string): URL {
  return new URL(`${path}${extname(asking)}`, asking);
}
