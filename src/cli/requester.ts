// Identifies the user of the command line, for the audit trail.
import { userInfo } from 'node:os';

/** Returns `cli:<user>`, or `cli` if the system does not know the user. */
export function requester(): string {
  try {
    return `cli:${userInfo().username}`;
  } catch {
    // A uid without an entry in the user database, as in many containers.
    return 'cli';
  }
}
