// The key ring of the tests.
import { parseKeyRing } from '../../src/platform/key-ring.ts';

/** What stands in ARCADIA_ENCRYPTION_KEYS of the processes under test. */
export const encryptionKeys = 'YXJjYWRpYS1rZXktb2YtdGhlLXRlc3RzLTAxMjM0NTY=';

export const keyRing = parseKeyRing(encryptionKeys);
