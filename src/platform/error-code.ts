// What errors call themselves for programs.

/** The code of an error, such as `ECONNREFUSED` or Postgres's SQLSTATE; null: it has none, or is no error. */
export function errorCodeOf(error: unknown): string | null {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : null;
}

// Out of file descriptors (of the process, of the machine), memory, local ports, buffers; and the name service does not answer.
const LOCAL_TROUBLE = /^(?:EMFILE|ENFILE|ENOMEM|ENOBUFS|EADDRNOTAVAIL|EAI_AGAIN|EAI_MEMORY)$/;

/** Whether an error tells of trouble of this process or machine: nobody else has heard of what was to be asked. */
export function isLocalTrouble(error: unknown): boolean {
  return LOCAL_TROUBLE.test(errorCodeOf(error) ?? '');
}
