// Headers as text. Node reads their bytes as Latin-1, while callers and proxies write UTF-8.
import { isUtf8 } from 'node:buffer';

/** Returns the text of a header as Node gives it; null if its bytes are not UTF-8. */
export function headerText(given: string): string | null {
  const bytes = Buffer.from(given, 'latin1');
  return isUtf8(bytes) ? bytes.toString() : null;
}
