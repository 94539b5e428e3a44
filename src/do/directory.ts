// SSH keys and projects of the account by name. Each process caches the whole lists for a short time, so that many sagas
// that name the same key cause one read.
import type { DigitalOceanClient } from './client.ts';
import type { ReadList } from './kept-list.ts';
import { keepList } from './kept-list.ts';
import type { Project, SshKey } from './schemas.ts';

export type Directory = Readonly<{
  sshKeys: ReadList<SshKey>;
  projects: ReadList<Project>;
}>;

/** Creates the directory of one process. Its functions reject like the client's. Failed reads are not cached. */
export function createDirectory(client: Pick<DigitalOceanClient, 'listSshKeys' | 'listProjects'>): Directory {
  return { sshKeys: keepList(() => client.listSshKeys()), projects: keepList(() => client.listProjects()) };
}
