// Reads the codes of errors.

/** Returns the code of an error, such as `ECONNREFUSED` or a SQLSTATE; null if it has none or is not an error. */
export function errorCodeOf(error: unknown): string | null {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : null;
}

// Out of file descriptors (process or machine), memory, local ports or buffers; or DNS does not answer.
const LOCAL_TROUBLE = /^(?:EMFILE|ENFILE|ENOMEM|ENOBUFS|EADDRNOTAVAIL|EAI_AGAIN|EAI_MEMORY)$/;

/** Whether an error is local to this process or machine, so that no other machine received the request. */
export function isLocalTrouble(error: unknown): boolean {
  return LOCAL_TROUBLE.test(errorCodeOf(error) ?? '');
}
