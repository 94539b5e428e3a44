// Modules that are started as processes of their own, by the name of their file: TypeScript in the source tree,
// JavaScript where the package was built.
import { extname } from 'node:path';

/**
 * The URL of another module, with the extension that the asking one has.
 *
 * @param path the module's path from the asking one, without its extension
 * @param asking the `import.meta.url` of the asking module
 */
export function builtBeside(path: string, asking: string): URL {
  return new URL(`${path}${extname(asking)}`, asking);
}
