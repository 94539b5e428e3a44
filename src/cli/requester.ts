// Who sits at the command line, for the record.
import { userInfo } from 'node:os';

/** `cli:<user>`, or `cli` where the system doesn't know. */
export function requester(): string {
  try {
    return `cli:${userInfo().username}`;
  } catch {
    // A uid without an entry in the system's list of users, as in many containers.
    return 'cli';
  }
}
